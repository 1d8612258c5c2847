"""Pictures to pixels and back: decoded by processes of their own, resized, hidden, pasted, shown."""
