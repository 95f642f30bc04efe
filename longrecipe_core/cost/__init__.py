"""What a recipe's trainings cost: FLOPs, memory, bytes and hours. No torch in here, so that `plan` stays quick."""
