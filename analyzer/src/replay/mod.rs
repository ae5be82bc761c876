//! Events -> live blocks, totals, peak, faults.
