//! Permissions as other brokers write them, translated to rules and back.
//!
//! A dialect marks its rules with its name ([`Rule::dialect`](crate::Rule::dialect)), so that it lists what it was given,
//! unchanged, and replaces only its own rules.

mod expression;
pub mod mosquitto;
pub mod rabbitmq;
pub mod scopes;

pub use expression::{Expression, ExpressionError, check_expression};
