"""One Prefect task per stage: make the key, ask the store, call the core, commit, return a reference."""
