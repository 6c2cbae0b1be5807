//! What vouches for the history: kept checkpoints, and what all comes to in the end.

use super::{Chain, Tree};
use crate::verify::{FaultKind, Report};
use ledger::merkle::{Frontier, Hash, hash_text};

impl Chain<'_> {
    pub(super) fn vouch(&mut self, size: u64) {
        self.report.vouched = Some(self.report.vouched.unwrap_or(0).max(size));
    }

    /// The tree has the size of a kept checkpoint.
    pub(super) fn reached(&mut self) {
        let Some(Tree { edge: Some(edge), suspect, .. }) = &self.tree else { return };
        if self.ahead.last() == Some(&edge.size()) {
            let (size, root, suspect) = (edge.size(), edge.root(), *suspect);
            self.compare_ahead(size, &root, suspect);
        }
    }

    pub(super) fn compare_ahead(&mut self, size: u64, root: &Hash, suspect: bool) {
        self.ahead.pop();
        let Some(known) = self.trust.known.get(&size) else { return };
        if known.root == *root || !suspect {
            let (known_root, from) = (known.root, known.from.clone());
            self.compare(size, root, &known_root, &from);
        }
    }

    pub(super) fn compare(&mut self, size: u64, root: &Hash, known: &Hash, from: &str) {
        if root == known {
            self.matched.insert(size);
            self.vouch(size);
        } else {
            let detail = format!("it has the root {} here, but {} in {from}", hash_text(root), hash_text(known));
            self.emit(FaultKind::Forked, None, None, Some(size), detail);
        }
    }

    /// Everything was read.
    pub(in crate::verify) fn finish(mut self) -> Report {
        let end = self.report.tree_size;
        for (&size, known) in &self.trust.known {
            if self.matched.contains(&size) {
                continue;
            }
            if size > end && !self.trust.older && self.report.incomplete.is_none() {
                let detail =
                    format!("the history ends with {end} leaves, before the checkpoint of {size} leaves in {}", known.from);
                self.emit(FaultKind::GoneBack, None, None, Some(size), detail);
            } else if self.report.faults.get(&FaultKind::Forked).is_none_or(|&count| count == 0) {
                self.report.known_unjudged.push(format!(
                    "the checkpoint of {size} leaves in {}: no tree of that size is in what was verified",
                    known.from
                ));
            }
        }
        self.judge_origins();
        self.report.known_matched = self.matched.len() as u64;
        if self.report.root.is_none() {
            self.report.root =
                self.tree.as_ref().filter(|tree| !tree.suspect).and_then(|tree| tree.edge.as_ref()).map(Frontier::root);
        }
        self.remark();
        self.report
    }

    /// What could not be told.
    pub(super) fn remark(&mut self) {
        let report = &mut self.report;
        if let Some(from) = report.key_unknown_from {
            report.remarks.push(format!(
                "from tree size {from} on the log has another key: give it too, after you have asked its operator whether it is genuine"
            ));
        }
        if report.not_judged > 0 {
            let text = format!("{} entries have something that this version does not know", report.not_judged);
            report.remarks.push(text);
        }
        if report.is_empty_selection {
            report.remarks.push("the selection has no sealed entry, so that nothing is proven".to_owned());
        }
        let remarks = &mut report.remarks;
        match report.vouched {
            None => remarks.push(
                "nothing from outside vouches for it: give the log's public key or a checkpoint that was kept from earlier"
                    .to_owned(),
            ),
            Some(vouched) if vouched < report.tree_size => {
                remarks.push(format!("nothing vouches for leaves {vouched} to {} yet", report.tree_size - 1));
            }
            Some(_) => {}
        }
        if report.vouched.is_some() && self.trust.known.is_empty() {
            remarks
                .push("no checkpoint from earlier was given: whether the newest entries were cut off cannot be told".to_owned());
        } else if report.vouched.is_some() && self.trust.keys.is_empty() && report.checkpoints > report.signed {
            remarks.push("no public key was given: signatures were not verified".to_owned());
        }
        if report.unsealed > 0 {
            remarks.push(format!("{} entries are not sealed yet: only their checksums could be verified", report.unsealed));
        }
        if self.unjudged > 0 {
            remarks.push(format!(
                "the roots of {} checkpoints could not be worked out, because of the faults before them",
                self.unjudged
            ));
        }
    }
}
