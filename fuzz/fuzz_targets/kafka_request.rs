#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inver_kafka::fuzz::request(bytes));
