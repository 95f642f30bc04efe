"""How it runs somewhere: work pools, schedulers, containers."""
