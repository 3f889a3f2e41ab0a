#pragma once
/// Top-k over all of a tensor's part in a range, by one threshold: where a tensor has its large values decides where
/// they are sent from, not a share that each run of it gets. This is also the hard threshold with a byte budget
/// (γ-FedHT, arXiv 2505.12479): the budget is known before there is a value, so the threshold is the one that fills it.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "topk-1%", wire id 15: the n/100 largest of n, rounded up, of equal ones the first, coded as sign2 codes its
/// elements; places in Elias–Fano's code. 0.107 bits an element. Wants error feedback.
const codec& topk_1_percent_codec();
/// "topk-0.1%", wire id 16: the same with n/1000. 0.014 bits.
const codec& topk_1_per_mille_codec();

}  // namespace longhaul::compress
