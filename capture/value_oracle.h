// Values that the host asks for while the step is being recorded, computed on
// the CPU from the batch's integer inputs. Invariant: only operators that reach
// no float input, no parameter and no chance are evaluated, so that a guard can
// repeat the computation exactly.
#ifndef HEDDLE_CAPTURE_VALUE_ORACLE_H_
#define HEDDLE_CAPTURE_VALUE_ORACLE_H_

#include <string>

#include "capture/session.h"

namespace heddle::capture {

class ValueOracle {
 public:
  explicit ValueOracle(Session& session) : session_(session) {}

  // The value as a CPU tensor; raises with the place and the remedy when it
  // depends on more than integer inputs. `reader` is the operator that asked.
  at::Tensor Evaluate(ValueId value, const std::string& reader);

 private:
  Session& session_;
};

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_VALUE_ORACLE_H_
