//! The server over a lake on disk, asked over loopback as anybody would ask it.

mod city;
mod client;
mod public;
mod staff;
mod windows;
