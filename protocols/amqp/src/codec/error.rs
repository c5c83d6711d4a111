//! Errors of the decoder.

/// Why bytes are not what they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the value does.
    #[error("truncated")]
    Truncated,
    /// A short string of a method is not UTF-8.
    #[error("Malformed UTF-8 in shortstr")]
    NotUtf8,
    /// A field table has a value of a type that does not exist.
    #[error("unknown field type {0}")]
    UnknownFieldType(u8),
    /// Tables or arrays within each other beyond that depth.
    #[error("field table nested deeper than {0}")]
    TooDeep(usize),
    /// No such class and method.
    #[error("unknown method {class}.{method}")]
    UnknownMethod {
        /// The class id.
        class: u16,
        /// The method id.
        method: u16,
    },
    /// Bytes are left over behind the last value.
    #[error("trailing bytes")]
    Trailing,
}
