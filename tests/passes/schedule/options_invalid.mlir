// RUN: not heddle-opt %s --train-pipeline="zerro=0" 2>&1 | FileCheck %s --check-prefix=KEY
// RUN: not heddle-opt %s --train-pipeline="zero=4" 2>&1 | FileCheck %s --check-prefix=ZERO
// RUN: not heddle-opt %s --train-pipeline="mesh=dp" 2>&1 | FileCheck %s --check-prefix=MESH
// RUN: not heddle-opt %s --train-pipeline="mesh=dp:2,ep:2" 2>&1 | FileCheck %s --check-prefix=MESHEP
// RUN: not heddle-opt %s --train-pipeline="mesh=tp:1" 2>&1 | FileCheck %s --check-prefix=AXIS
// RUN: not heddle-opt %s --train-pipeline="mode=replay mesh=dp:2" 2>&1 | FileCheck %s --check-prefix=REPLAY
// RUN: not heddle-opt %s --train-pipeline="sp=2" 2>&1 | FileCheck %s --check-prefix=SP
// RUN: not heddle-opt %s --train-pipeline="ep=2" 2>&1 | FileCheck %s --check-prefix=EP
// RUN: not heddle-opt %s --train-pipeline="mode=replay" --stop-after=shed 2>&1 | FileCheck %s --check-prefix=STOP
// RUN: not heddle-opt %s --train-pipeline="optimizer={" 2>&1 | FileCheck %s --check-prefix=BRACE
// Tests that what the pipeline cannot do is refused by name, before anything runs.
// KEY: unknown option 'zerro'; did you mean 'zero'?
// ZERO: zero=4 is no ZeRO stage; stages are 0 to 3
// MESH: mesh 'dp' is malformed; write axes as name:size, as in dp:4
// MESHEP: option mesh=dp:2,ep:2 is not supported; use an axis dp only
// AXIS: unknown axis 'tp'; axes are dp, ep and sp
// REPLAY: mode=replay gives back what was recorded, on one rank; use zero=0 and mesh=dp:1
// SP: option sp=2 is not supported; use sp=1
// EP: option ep=2 is not supported; use ep=1
// STOP: stop-after='shed' is no phase of this compiler; did you mean 'sched'?
// BRACE: the value of 'optimizer' has an unclosed quote or brace
"builtin.module"() ({}) : () -> ()
