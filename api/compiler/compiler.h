// The compiler as a C library: text in, plan bytes out. MLIR is inside and
// hidden. Invariant: no exception and no MLIR type crosses this boundary; a
// failing call leaves a message and no output. What would break it: an exported
// symbol that does not begin with heddle_.
#ifndef HEDDLE_API_COMPILER_COMPILER_H_
#define HEDDLE_API_COMPILER_COMPILER_H_

#include <stddef.h>
#include <stdint.h>

#define HEDDLE_COMPILER_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// Bytes that the library allocated; `data` ends in a zero byte that `size` does
// not count. Give it back with heddle_free.
typedef struct {
  char* data;
  size_t size;
} HeddleBuffer;

// Compiles a captured step to a plan. Texts are MLIR (generic form or
// bytecode); `eval_mlir` may be null. `options_json`, all keys optional,
// unknown ones refused:
//   "mode": "train" | "replay"                       default "train"
//   "sidecar", "eval_sidecar": path                  constants of the programs
//   "optimizer": {"kind": "adamw", "groups": [...], "betas", "eps",
//   "weight_decay", "lr_scale"} "clip": number | null; "skip_nonfinite": bool
//   default null, true "loss_average", "accumulate_dtype", "master_dtype",
//   "state_dtype": string | null "zero", "ep", "sp": int; "mesh": "dp:1"
//   "save_phases": directory | null
//   "reproducer_dir": directory                      where a failing
//   compilation is written; default the system's temporary directory "config":
//   object                                 recorded in the plan beside what was
//   resolved
// Returns 0 and `plan_out`, or 1 and `error_out`: what, where, what to do, and
// for a failing pass the command that replays it.
HEDDLE_COMPILER_API int heddle_compile(const char* step_mlir, size_t step_size,
                                       const char* eval_mlir, size_t eval_size,
                                       const char* options_json,
                                       HeddleBuffer* plan_out,
                                       HeddleBuffer* error_out);

// Runs a textual pass pipeline ("builtin.module(...)") over a module and prints
// it in generic form with locations. Returns 0, or 1 and `error_out`.
HEDDLE_COMPILER_API int heddle_run_passes(const char* mlir, size_t size,
                                          const char* pipeline,
                                          HeddleBuffer* text_out,
                                          HeddleBuffer* error_out);

// Reads a DeepSpeed configuration (JSON, comments allowed). `context_json` may
// be null; keys: "world_size": int, "auto": {key path: value}. Returns 0 and
// `out`, a JSON object {"plan", "optimizer", "schedule", "batch", "warnings"}
// (api/compiler/deepspeed.h), or 1 and `error_out`, which names the key.
HEDDLE_COMPILER_API int heddle_read_deepspeed(const char* text, size_t size,
                                              const char* context_json,
                                              HeddleBuffer* out,
                                              HeddleBuffer* error_out);

// The factor on the base learning rate of update `update` (from 1) under a
// schedule as plans hold it (api/schedule/schedule.h). Returns 0, or 1 and
// `error_out`.
HEDDLE_COMPILER_API int heddle_schedule_factor(const char* schedule_json,
                                               int64_t update, double* factor,
                                               HeddleBuffer* error_out);

// heddle-opt's main().
HEDDLE_COMPILER_API int heddle_opt_main(int argc, char** argv);

HEDDLE_COMPILER_API void heddle_free(HeddleBuffer* buffer);

#ifdef __cplusplus
}
#endif

#endif  // HEDDLE_API_COMPILER_COMPILER_H_
