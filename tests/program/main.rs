//! The program as one runs it: files, messages, exit codes.

mod attacks;
mod certify;
mod cli;
mod emulated;
mod evaluate;
mod imagenet_sweep;
mod intake;
#[path = "../common/listed.rs"]
mod listed;
mod maps;
mod nvtx;
mod onnx;
mod own;
mod parity;
mod place;
mod profile;
mod report;
mod several;
mod shards;
mod shell;
mod suite;
mod terminal;
mod verdict;
