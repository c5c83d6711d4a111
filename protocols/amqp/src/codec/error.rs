//! The decoder's error.

/// Malformed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the value does.
    #[error("truncated")]
    Truncated,
    /// A short string of a method is not UTF-8.
    #[error("Malformed UTF-8 in shortstr")]
    NotUtf8,
    /// A field table has a value of an unknown type.
    #[error("unknown field type {0}")]
    UnknownFieldType(u8),
    /// Tables or arrays are nested deeper than this.
    #[error("field table nested deeper than {0}")]
    TooDeep(usize),
    /// The class or the method is unknown.
    #[error("unknown method {class}.{method}")]
    UnknownMethod {
        /// The class id.
        class: u16,
        /// The method id.
        method: u16,
    },
    /// Bytes follow the last value.
    #[error("trailing bytes")]
    Trailing,
}
