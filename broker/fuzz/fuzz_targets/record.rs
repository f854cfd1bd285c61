//! Keys and records of the store.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capstan_broker::fuzz::record(bytes));
