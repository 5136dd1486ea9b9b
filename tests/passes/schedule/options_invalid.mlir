// RUN: not heddle-opt %s --train-pipeline="zerro=0" 2>&1 | FileCheck %s --check-prefix=KEY
// RUN: not heddle-opt %s --train-pipeline="zero=3" 2>&1 | FileCheck %s --check-prefix=ZERO
// RUN: not heddle-opt %s --train-pipeline="mesh=dp:4" 2>&1 | FileCheck %s --check-prefix=MESH
// RUN: not heddle-opt %s --train-pipeline="mesh=tp:1" 2>&1 | FileCheck %s --check-prefix=AXIS
// RUN: not heddle-opt %s --train-pipeline="sp=2" 2>&1 | FileCheck %s --check-prefix=SP
// RUN: not heddle-opt %s --train-pipeline="ep=2" 2>&1 | FileCheck %s --check-prefix=EP
// RUN: not heddle-opt %s --train-pipeline="mode=replay" --stop-after=shed 2>&1 | FileCheck %s --check-prefix=STOP
// RUN: not heddle-opt %s --train-pipeline="optimizer={" 2>&1 | FileCheck %s --check-prefix=BRACE
// Tests that what the pipeline cannot do is refused by name, before anything runs.
// KEY: unknown option 'zerro'; did you mean 'zero'?
// ZERO: option zero=3 is not supported; use zero=0
// MESH: option mesh=dp:4 is not supported; use mesh=dp:1
// AXIS: unknown axis 'tp'; axes are dp, ep and sp
// SP: option sp=2 is not supported; use sp=1
// EP: option ep=2 is not supported; use ep=1
// STOP: stop-after='shed' is no phase of this compiler; did you mean 'sched'?
// BRACE: the value of 'optimizer' has an unclosed quote or brace
"builtin.module"() ({}) : () -> ()
