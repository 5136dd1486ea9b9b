// A tape as the text of the graph dialect (docs/formats.md), without MLIR.
#ifndef HEDDLE_CAPTURE_PRINT_H_
#define HEDDLE_CAPTURE_PRINT_H_

#include <string>

#include "capture/tape.h"

namespace heddle::capture {

// Generic-form MLIR with locations. MLIR's parse and generic print of the
// result gives the same bytes.
std::string PrintTape(const Tape& tape);

// The form that MLIR prints for a double: six digits where they say it exactly,
// else seventeen, hexadecimal where neither reads as that float.
std::string FormatDouble(double value);

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_PRINT_H_
