//! The newest snapshot: what is committed now, whatever the isolation level of the transaction that asks.

use pgrx::pg_sys;

/// A snapshot that is the active one as long as this is alive.
pub struct NewestSnapshot(pg_sys::Snapshot);

impl NewestSnapshot {
    /// Takes it.
    pub fn take() -> Self {
        // SAFETY: the active snapshot is a copy that stays until it is popped; nothing else pops below our level.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            NewestSnapshot(pg_sys::GetActiveSnapshot())
        }
    }

    /// The snapshot, valid as long as this is alive.
    pub fn as_ptr(&self) -> pg_sys::Snapshot {
        self.0
    }

    /// The transactions that are in progress in it, in ascending order: prepared ones too, and the own one if it has an id. `None`, if
    /// they are too many to list.
    ///
    /// A snapshot names those below its xmax and takes all others for running without naming them. Of these, ids of
    /// subtransactions cannot be told from those of transactions; they are listed as well.
    pub fn in_progress(&self) -> Option<Vec<u64>> {
        const UNNAMED: u64 = 1 << 20;
        // SAFETY: `xip` has `xcnt` ids. All are within 2³¹ of the next id to be given out.
        unsafe {
            let next = pg_sys::ReadNextFullTransactionId().value;
            let widen = |xid: pg_sys::TransactionId| {
                let (xid, epoch) = (xid.into_inner(), next >> 32);
                let epoch = if xid > next as u32 { epoch.saturating_sub(1) } else { epoch };
                epoch << 32 | u64::from(xid)
            };
            let unnamed = widen((*self.0).xmax)..next;
            if unnamed.end.saturating_sub(unnamed.start) > UNNAMED {
                return None;
            }
            let is_own = |xid: u64| pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from_inner(xid as u32));
            let named = (0..(*self.0).xcnt as usize).map(|i| widen(*(*self.0).xip.add(i)));
            let mut all: Vec<u64> = named.chain(unnamed.filter(|&xid| !is_own(xid))).collect();
            all.extend(Some(pg_sys::GetTopFullTransactionIdIfAny().value).filter(|&own| own != 0));
            all.sort_unstable();
            Some(all)
        }
    }
}

impl Drop for NewestSnapshot {
    fn drop(&mut self) {
        // While an error is on its way, the (sub)transaction's abort pops it.
        if !std::thread::panicking() {
            // SAFETY: pushed by us, and whatever was pushed later has been popped.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}
