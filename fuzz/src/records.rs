//! Audit records.

use super::source::Source;
use meshhook_secrets_core::audit::{Outcome, RECORD_MAX, Record};

/// Bytes decode only if they are what the record encodes to, and any record that fits goes round.
pub fn records(data: &[u8]) {
    if let Ok(record) = Record::decode(data) {
        assert_eq!(record.encode(), data, "another spelling of {record:?}");
    }
    let fitted = record(&mut Source(data)).fit();
    let bytes = fitted.encode();
    assert!(bytes.len() <= RECORD_MAX, "{} bytes", bytes.len());
    assert_eq!(Record::decode(&bytes).as_ref(), Ok(&fitted));
    assert_eq!(fitted.clone().fit(), fitted, "what was cut is not cut again");
    // Cut off anywhere, or with anything behind it, it is none.
    let end = data.len() % bytes.len();
    assert!(Record::decode(&bytes[..end]).is_err());
    assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
}

fn record(source: &mut Source<'_>) -> Record {
    let outcome = source.one_of(&Outcome::ALL);
    // Longer than any field has room for.
    let stretch = usize::from(source.byte() % 4);
    let long = |source: &mut Source<'_>| source.text().repeat(stretch);
    let mut record = Record::new(source.long(), &long(source), outcome, &long(source));
    record.sqlstate = source.perhaps(long);
    record.project_id = source.perhaps(Source::array);
    record.secret_id = source.perhaps(Source::array);
    record.name = source.perhaps(long);
    record.version = source.perhaps(Source::number);
    record.kek_id = source.perhaps(Source::number);
    record.purpose = source.perhaps(long);
    record.detail = source.perhaps(long);
    record.actor_role = source.perhaps(long);
    record.claimed_sub = source.perhaps(long);
    record.claimed_role = source.perhaps(long);
    record.client_address = source.perhaps(long);
    record.application_name = source.perhaps(long);
    record.request_id = source.perhaps(long);
    record.transaction_id = source.perhaps(Source::long);
    record.times = source.number();
    record
}
