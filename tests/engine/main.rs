//! Networks, attacks, the defence, data and configs, through the library.

mod apgd;
mod attack;
mod autoattack;
mod coatnet;
mod defended;
mod examples;
mod fmn;
mod imagenet;
#[path = "../common/listed.rs"]
mod listed;
mod network;
mod onnx;
mod resnet;
mod stale;
mod starts;
mod statistics;
mod study;
mod torch;
mod traffic;
mod unet;
