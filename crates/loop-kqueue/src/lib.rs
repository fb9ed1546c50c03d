//! The kqueue backend of the hub, for macOS and the BSDs.
