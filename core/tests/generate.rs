//! Generated values have the length asked for, only the characters offered, and no bias.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{
    Error,
    error::GenerateError,
    generate::{Charset, generate},
    limits::GENERATE_MAX,
    random,
};
use std::collections::{BTreeMap, BTreeSet};

/// Enough that the mildest bias possible here, 256 % 10, stands far outside the bound.
const SAMPLE: usize = 1_000_000;

#[test]
fn each_charset_has_exactly_its_characters_all_equally_likely() {
    for (name, rule) in charsets() {
        let counts = counts(&sample(name.parse().unwrap()));
        let offered: BTreeSet<u8> = (0..=255).filter(|byte| rule(*byte)).collect();
        let seen: BTreeSet<u8> = counts.keys().copied().collect();
        assert_eq!(seen, offered, "{name}");
        let (statistic, bound) = chi_square(&counts, offered.len());
        assert!(statistic < bound, "{name}: {statistic} of {bound}");
    }
}

/// The bound is worth something: what a plain modulo makes breaks it.
#[test]
fn a_modulo_biased_generator_would_be_caught() {
    let mut bytes = vec![0; SAMPLE];
    random::fill(&mut bytes).unwrap();
    for characters in [10_u8, 62, 90] {
        let biased: Vec<u8> = bytes.iter().map(|byte| byte % characters).collect();
        let (statistic, bound) = chi_square(&counts(&biased), characters.into());
        assert!(statistic > bound, "{characters}: {statistic} of {bound}");
    }
}

#[test]
fn length_is_exact_from_one_to_the_limit() {
    for (name, _) in charsets() {
        for length in [1, 2, 31, 32, 63, 64, 65, 1000, 4095, 4096] {
            let value = generate(length, name.parse().unwrap()).unwrap();
            assert_eq!(value.len(), usize::try_from(length).unwrap(), "{name}");
        }
    }
}

#[test]
fn other_lengths_are_refused() {
    assert_eq!(GENERATE_MAX, 4096);
    for length in [0, -1, 4097, i32::MIN, i32::MAX] {
        let refused = generate(length, Charset::Hex).map(drop);
        assert_eq!(refused, Err(Error::Generate(GenerateError::Length)));
    }
}

#[test]
fn exactly_the_named_charsets_are_offered() {
    let named: BTreeSet<&str> = Charset::NAMES.into();
    let tested: BTreeSet<&str> = charsets().into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, tested);
    for name in ["", "Hex", "HEX", "hex ", "base64", "ascii"] {
        assert_eq!(name.parse::<Charset>(), Err(GenerateError::Charset));
    }
}

#[test]
fn no_two_values_are_alike() {
    let values: BTreeSet<Vec<u8>> =
        (0..1000).map(|_| generate(32, Charset::Base64Url).unwrap().to_vec()).collect();
    assert_eq!(values.len(), 1000);
}

#[test]
fn uuids_are_random_and_of_version_4() {
    let uuids: BTreeSet<[u8; 16]> = (0..1000).map(|_| random::uuid().unwrap()).collect();
    assert_eq!(uuids.len(), 1000);
    for uuid in &uuids {
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 0b10));
    }
    // Every other bit takes both values.
    let fold = |f: fn(u8, u8) -> u8| {
        uuids.iter().copied().reduce(|a, b| {
            let mut both = a;
            both.iter_mut().zip(b).for_each(|(x, y)| *x = f(*x, y));
            both
        })
    };
    let (ever_set, always_set) = (fold(|a, b| a | b).unwrap(), fold(|a, b| a & b).unwrap());
    for i in 0..16 {
        let fixed = !(ever_set[i] ^ always_set[i]);
        let expected = [(6, 0xf0), (8, 0xc0)]
            .into_iter()
            .find_map(|(place, bits)| (place == i).then_some(bits));
        assert_eq!(fixed, expected.unwrap_or(0), "byte {i}");
    }
}

type Rule = fn(u8) -> bool;

/// Every charset by the rule of its description, told apart from the list in the code.
fn charsets() -> [(&'static str, Rule); 5] {
    [
        ("base64url", |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
        ("hex", |b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        ("alphanumeric", |b| b.is_ascii_alphanumeric()),
        ("digits", |b| b.is_ascii_digit()),
        ("printable", |b| b.is_ascii_graphic() && !b"\"'`\\".contains(&b)),
    ]
}

fn sample(charset: Charset) -> Vec<u8> {
    let mut sample = Vec::with_capacity(SAMPLE + GENERATE_MAX);
    while sample.len() < SAMPLE {
        sample.extend_from_slice(&generate(GENERATE_MAX as i32, charset).unwrap());
    }
    sample
}

fn counts(sample: &[u8]) -> BTreeMap<u8, usize> {
    let mut counts = [0; 256];
    sample.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    (0..=255).zip(counts).filter(|(_, count)| *count > 0).collect()
}

/// Pearson's statistic against the uniform distribution, and a bound 20 standard deviations above
/// its mean: a fair generator passes it all but once in more than 10^15 runs.
fn chi_square(counts: &BTreeMap<u8, usize>, characters: usize) -> (f64, f64) {
    let total: usize = counts.values().sum();
    let expected = total as f64 / characters as f64;
    let unseen = (characters - counts.len()) as f64 * expected;
    let seen: f64 =
        counts.values().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    let freedom = (characters - 1) as f64;
    (seen + unseen, freedom + 20.0 * (2.0 * freedom).sqrt())
}
