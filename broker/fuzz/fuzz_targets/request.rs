//! The bodies of all requests, and declarations with their bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capstan_broker::fuzz::request(bytes));
