//! The plug.
