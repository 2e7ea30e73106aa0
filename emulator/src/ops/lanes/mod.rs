//! What instructions compute in one lane. `select` composes these with the shapes of `shapes.rs`.

pub mod arithmetic;
pub mod bits;
pub mod carry;
pub mod compare;
pub mod convert;
pub mod divide;
pub mod exact;
pub mod float;
pub mod fp8;
pub mod integer;
pub mod moves;
pub mod predicates;
pub mod rounding;
pub mod special;
pub mod values;
pub mod video;
