"""The schema's revisions, applied by `Store.migrate`."""
