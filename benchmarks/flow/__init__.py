"""What orchestration costs."""
