//! Instructions against definitions of their own, lane by lane and at every level. One binary: each would compile the recipes again.

mod accepted;
mod bits;
mod compare;
mod convert;
mod float;
mod half;
mod harness;
mod integer;
mod matrix;
mod special;
mod warp;
