//! rdock-runtime
