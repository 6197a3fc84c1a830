//! Calls by triggers.

use super::call::Call;
use crate::error::{Error, Result};
use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;

/// What a trigger was fired by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE.
    Truncate,
}

/// The call of a trigger function.
pub struct Trigger(*mut pg_sys::TriggerData);

impl Trigger {
    /// The trigger of this call; an error if it was not called by one.
    pub fn of(call: &Call) -> Result<Self> {
        // SAFETY: the context is null or a node; its tag tells which.
        unsafe {
            let context = (*call.fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::new("39P01", "function was not called by a trigger"));
            }
            Ok(Self(context.cast()))
        }
    }

    /// What fired it.
    pub fn event(&self) -> Event {
        // SAFETY: valid for the duration of the call.
        match unsafe { (*self.0).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    /// Whether the table is a partition, where a deletion can be half of a move.
    pub fn in_partition(&self) -> bool {
        // SAFETY: valid for the duration of the call.
        super::catalog::is_partition(unsafe { (*(*self.0).tg_relation).rd_id })
    }

    /// The value that lets the statement go on: no row is changed by our triggers.
    pub fn unchanged(&self) -> pg_sys::Datum {
        // SAFETY: valid for the duration of the call.
        unsafe {
            if (*self.0).tg_event & pg_sys::TRIGGER_EVENT_ROW == 0 {
                return pg_sys::Datum::null();
            }
            let new = (*self.0).tg_newtuple;
            pg_sys::Datum::from(if new.is_null() { (*self.0).tg_trigtuple } else { new })
        }
    }

    /// The uuid in the column that the trigger's first argument names, before the change.
    pub fn old_uuid(&self) -> Result<[u8; 16]> {
        // SAFETY: valid for the duration of the call.
        self.uuid(unsafe { (*self.0).tg_trigtuple })
    }

    /// The same, after an UPDATE.
    pub fn new_uuid(&self) -> Result<[u8; 16]> {
        // SAFETY: valid for the duration of the call.
        self.uuid(unsafe { (*self.0).tg_newtuple })
    }

    fn uuid(&self, tuple: pg_sys::HeapTuple) -> Result<[u8; 16]> {
        let wrong = || {
            Error::new("55000", "trigger does not name a column of type uuid")
                .hint("Call meshhook_secrets.attach_projects again.")
        };
        // SAFETY: trigger, relation and tuple are valid for the duration of the call; the column's
        // type is checked before the datum is read.
        unsafe {
            let trigger = (*self.0).tg_trigger;
            if tuple.is_null() || (*trigger).tgnargs < 1 {
                return Err(wrong());
            }
            let name = CStr::from_ptr(*(*trigger).tgargs);
            let relation = (*self.0).tg_relation;
            let number = pg_sys::get_attnum((*relation).rd_id, name.as_ptr());
            if number <= 0 || pg_sys::get_atttype((*relation).rd_id, number) != pg_sys::UUIDOID {
                return Err(wrong());
            }
            let mut null = true;
            let datum =
                pg_sys::SPI_getbinval(tuple, (*relation).rd_att, i32::from(number), &mut null);
            let id = pgrx::Uuid::from_datum(datum, null).ok_or_else(wrong)?;
            Ok(*id.as_bytes())
        }
    }
}
