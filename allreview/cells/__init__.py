"""From files to cells: importing, names, decoding, thumbnails, leak groups, splits, the demo set, browsing."""
