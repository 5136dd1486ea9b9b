// Step arguments -> inputs, state and constants of a plan, shared by the
// training and the evaluation program. Invariant: one name has one buffer,
// whichever program names it; both programs must agree on its type. What would
// break it: state that only one program declares with another layout.
#ifndef HEDDLE_PASSES_SCHEDULE_PLAN_LOWERING_H_
#define HEDDLE_PASSES_SCHEDULE_PLAN_LOWERING_H_

#include <map>
#include <string>

#include "passes/emit/sidecar.h"
#include "passes/schedule/plan_config.h"
#include "passes/schedule/section_lowering.h"

namespace heddle {

class PlanLowering {
 public:
  explicit PlanLowering(sched::PlanOp plan);

  // Binds every argument of `step`; `scope` is put before constant names (a
  // second program has constants of its own).
  mlir::LogicalResult bind(graph::StepOp step, const Sidecar& sidecar,
                           llvm::StringRef scope);

  // A new section, and the lowering of `order` into it.
  sched::SectionOp addSection(mlir::Location loc, llvm::StringRef name);

  // Writes `value` into the plan's configuration.
  void record(llvm::StringRef key, llvm::json::Value value) {
    recordInConfig(plan, key, std::move(value));
  }

  const RefMap& given() const { return refs; }
  void give(mlir::Value value, mlir::Value ref) { refs[value] = ref; }
  // The ref of state "kind name", null if the plan has none.
  mlir::Value stateOf(llvm::StringRef kind, llvm::StringRef name) const;

 private:
  mlir::LogicalResult bindOne(graph::StepOp step, mlir::BlockArgument argument,
                              mlir::Attribute role, const Sidecar& sidecar,
                              llvm::StringRef scope);
  void bindScaler(graph::StepOp step, mlir::StringAttr name, mlir::Value ref);
  void bindMembers(dist::BucketAttr bucket, mlir::Value ref);
  mlir::Value placeInArena(mlir::BlockArgument argument,
                           dist::BucketAttr bucket);
  void measureArenas(graph::StepOp step);
  // The ref under `key`, made by `make` on first use; an error where an earlier
  // one has another type.
  mlir::FailureOr<mlir::Value> shared(mlir::BlockArgument argument,
                                      const std::string& key,
                                      sched::Arena arena,
                                      sched::Category category,
                                      llvm::StringRef label, bool& fresh);
  mlir::LogicalResult addData(mlir::BlockArgument argument,
                              llvm::StringRef name, mlir::Value ref,
                              const Sidecar& sidecar);

  sched::PlanOp plan;
  mlir::OpBuilder builder;
  RefMap refs;
  std::map<std::string, mlir::Value> byKey;
  std::map<std::string, mlir::ArrayAttr> parameterNames;
  std::map<std::string, mlir::Value> arenas;
  std::map<std::string, int64_t> arenaElements;
};

}  // namespace heddle

#endif  // HEDDLE_PASSES_SCHEDULE_PLAN_LOWERING_H_
