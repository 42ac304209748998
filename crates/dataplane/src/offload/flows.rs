//! The flows of a batch that may go on.

use super::candidate::Flow;

/// How many flows are followed. With more, the one that has been longest there is forgotten: its frame gets no more
/// packets.
const FLOWS: usize = 64;

/// A table of flows.
#[derive(Debug)]
pub(super) struct Flows {
    /// A number for each slot in use, to pass over the others quickly.
    tags: Vec<u64>,
    slots: Vec<Slot>,
    /// The slot that is used anew next, once all are in use.
    oldest: usize,
}

/// A flow.
#[derive(Debug)]
pub(super) struct Slot {
    flow: Flow,
    /// The frame that takes its next packet, by number in the batch.
    pub(super) frame: Option<usize>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            tags: Vec::with_capacity(FLOWS),
            slots: Vec::with_capacity(FLOWS),
            oldest: 0,
        }
    }
}

impl Flows {
    /// The slot of a flow, which may be new.
    #[inline]
    pub(super) fn slot(&mut self, flow: Flow) -> &mut Slot {
        let at = self.find(&flow).unwrap_or_else(|| self.insert(flow));
        &mut self.slots[at]
    }

    /// Ends the frame of a flow.
    pub(super) fn end(&mut self, flow: &Flow) {
        if let Some(at) = self.find(flow) {
            self.slots[at].frame = None;
        }
    }

    /// Ends the frames of all flows between the addresses of `flow`.
    pub(super) fn end_between(&mut self, flow: &Flow) {
        for slot in &mut self.slots {
            if slot.flow.has_addresses_of(flow) {
                slot.frame = None;
            }
        }
    }

    /// Forgets all flows.
    pub(super) fn clear(&mut self) {
        self.tags.clear();
        self.slots.clear();
        self.oldest = 0;
    }

    #[inline]
    fn find(&self, flow: &Flow) -> Option<usize> {
        let tag = flow.tag();
        (0..self.slots.len()).find(|at| self.tags[*at] == tag && self.slots[*at].flow == *flow)
    }

    fn insert(&mut self, flow: Flow) -> usize {
        let slot = Slot { flow, frame: None };
        if self.slots.len() < FLOWS {
            self.tags.push(flow.tag());
            self.slots.push(slot);
            return self.slots.len() - 1;
        }
        let at = self.oldest;
        self.oldest = (at + 1) % FLOWS;
        self.tags[at] = flow.tag();
        self.slots[at] = slot;
        at
    }
}
