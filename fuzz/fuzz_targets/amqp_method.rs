#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inver_amqp::fuzz::method(bytes));
