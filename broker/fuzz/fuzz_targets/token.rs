//! Lease ids and refs of messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capstan_broker::fuzz::token(bytes));
