#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| meshhook_secrets_fuzz::names(data));
