"""Where energy is read: one file a source, all of them behind one port."""
