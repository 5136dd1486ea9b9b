// The table.
#include "api/compiler/deepspeed_keys.h"

#include "runtime/plan/nearest.h"

namespace heddle {
namespace {

using K = JsonKind;
using U = KeyUse;

constexpr char kOwnBuckets[] =
    "Heddle lays its buckets out when it compiles the step";
constexpr char kOwnSchedule[] =
    "Heddle's cost model decides how far ahead parameters are gathered and "
    "when they are freed";
constexpr char kOwnLog[] =
    "a compiled step never prints; heddle-run and heddle.hf.Trainer log every "
    "step";
constexpr char kMonitor[] =
    "nothing is sent to this monitor; heddle-run writes JSONL with --log and "
    "TensorBoard events with --tensorboard";
constexpr char kInspect[] =
    "heddle-inspect shows FLOPs, bytes and collectives of a plan";
constexpr char kOffload[] =
    "state and parameters stay on the device; leave the offload out, or use a "
    "higher ZeRO stage or more ranks";
constexpr char kQuantized[] =
    "Heddle moves no quantized parameters or gradients; leave it out";
constexpr char kNested[] =
    "Heddle partitions over one group of ranks; leave it out";
constexpr char kData[] =
    "Heddle does not load data; do this where the batches are made";
constexpr char kExperts[] =
    "the captured step says where its experts are and how they are routed";
constexpr char kOneTensorAxis[] = "Heddle has no tensor-parallel axis";

const std::vector<DeepSpeedKey> kKeys = {
    // Batches
    {"train_batch_size", K::kNumber, U::kRead},
    {"train_micro_batch_size_per_gpu", K::kNumber, U::kRead},
    {"gradient_accumulation_steps", K::kNumber, U::kRead},
    {"managed_gradient_accumulation", K::kBool, U::kNoEffect, "[true]",
     "a call of the step is one update over all its micro-batches"},
    {"dataloader_drop_last", K::kBool, U::kNoEffect, "[false]", kData},

    // Optimizer
    {"optimizer", K::kSection, U::kRead},
    {"optimizer.type", K::kString, U::kRead},
    {"optimizer.legacy_fusion", K::kBool, U::kNoEffect, "[false]",
     "Heddle has one fused update"},
    {"optimizer.params", K::kSection, U::kRead},
    {"optimizer.params.lr", K::kNumber, U::kRead},
    {"optimizer.params.betas", K::kList, U::kRead},
    {"optimizer.params.eps", K::kNumber, U::kRead},
    {"optimizer.params.weight_decay", K::kNumber, U::kRead},
    {"optimizer.params.torch_adam", K::kBool, U::kRead},
    {"optimizer.params.adam_w_mode", K::kBool, U::kRead},
    {"optimizer.params.bias_correction", K::kBool, U::kRefused, "[true]",
     "Heddle's AdamW always corrects its bias"},
    {"optimizer.params.amsgrad", K::kBool, U::kRefused, "[false]",
     "Heddle's AdamW has no AMSGrad form"},
    {"optimizer.params.maximize", K::kBool, U::kRefused, "[false]",
     "Heddle minimizes the loss; return its negative"},
    {"optimizer.params.fused", K::kBool, U::kNoEffect, "[true]",
     "Heddle's update is always fused"},
    {"optimizer.params.foreach", K::kBool, U::kNoEffect, "[false]",
     "Heddle's update is always fused"},
    {"optimizer.params.set_grad_none", K::kBool, U::kNoEffect, "[true]",
     "a compiled step leaves no gradients behind"},
    {"optimizer.params.max_grad_norm", K::kNumber, U::kRefused, "[0, 0.0]",
     "say it as gradient_clipping"},
    {"optimizer.params.momentum", K::kNumber, U::kRead},
    {"optimizer.params.muon_lr", K::kNumber, U::kRead},
    {"optimizer.params.adam_lr", K::kNumber, U::kRead},
    {"optimizer.params.ns_method", K::kString, U::kRead},
    {"zero_allow_untested_optimizer", K::kBool, U::kNoEffect, "[true]",
     "Heddle has its own optimizers only"},
    {"zero_force_ds_cpu_optimizer", K::kBool, U::kNoEffect, "[false]",
     "the update runs where the step runs"},

    // Learning rate
    {"scheduler", K::kSection, U::kRead},
    {"scheduler.type", K::kString, U::kRead},
    {"scheduler.params", K::kSection, U::kRead},
    {"scheduler.params.warmup_min_lr", K::kNumber, U::kRead},
    {"scheduler.params.warmup_max_lr", K::kNumber, U::kRead},
    {"scheduler.params.warmup_num_steps", K::kNumber, U::kRead},
    {"scheduler.params.warmup_type", K::kString, U::kRead},
    {"scheduler.params.total_num_steps", K::kNumber, U::kRead},
    {"scheduler.params.warmup_min_ratio", K::kNumber, U::kRead},
    {"scheduler.params.cos_min_ratio", K::kNumber, U::kRead},
    {"scheduler.params.last_batch_iteration", K::kNumber, U::kRefused, "[-1]",
     "a resumed run takes its step from the checkpoint"},

    // Precision
    {"fp16", K::kSection, U::kRead},
    {"fp16.enabled", K::kBool, U::kRead},
    {"fp16.auto_cast", K::kBool, U::kRefused, "[false]",
     "inputs keep their type; cast them where the batches are made"},
    {"fp16.loss_scale", K::kNumber, U::kRead},
    {"fp16.initial_scale_power", K::kNumber, U::kRead},
    {"fp16.loss_scale_window", K::kNumber, U::kRead},
    {"fp16.hysteresis", K::kNumber, U::kRead},
    {"fp16.consecutive_hysteresis", K::kBool, U::kRead},
    {"fp16.min_loss_scale", K::kNumber, U::kRead},
    {"fp16.fused_mode", K::kBool, U::kNoEffect, "[true]",
     "Heddle has one fused update"},
    {"fp16.fp16_master_weights_and_grads", K::kBool, U::kRead},
    {"bf16", K::kSection, U::kRead},
    {"bf16.enabled", K::kBool, U::kRead},
    {"bf16.immediate_grad_update", K::kBool, U::kNoEffect, "[false]",
     "gradients are reduced where the schedule puts it"},
    {"bf16.check_grad_overflow", K::kBool, U::kNoEffect, "[true]",
     "Heddle always leaves an update out whose gradients are not finite"},
    {"bf16.bf16_master_weights_and_grads", K::kBool, U::kRead},
    {"bf16.bf16_optimizer_states", K::kBool, U::kRead},
    {"data_types", K::kSection, U::kRead},
    {"data_types.grad_accum_dtype", K::kString, U::kRead},
    {"amp", K::kSwitch, U::kRefused, "",
     "Heddle does not use Apex; use bf16 or fp16"},
    {"torch_autocast", K::kSwitch, U::kRefused, "",
     "a step with autocast regions is not captured; use bf16"},

    // Gradients
    {"gradient_clipping", K::kNumber, U::kRead},
    {"communication_data_type", K::kString, U::kRead},
    {"seq_parallel_comm_data_type", K::kString, U::kNoEffect, "[\"fp32\"]",
     "sequence ranks reduce in communication_data_type"},
    {"prescale_gradients", K::kBool, U::kNoEffect, "[false]",
     "gradients are divided once, after their sum"},
    {"gradient_predivide_factor", K::kNumber, U::kNoEffect, "[1, 1.0]",
     "gradients are divided once, after their sum"},
    {"gradient_allreduce_op", K::kString, U::kRefused, "[\"avg\", \"mean\"]",
     "gradients are averaged"},
    {"sparse_gradients", K::kBool, U::kNoEffect, "[false]",
     "gradients of embeddings are dense"},
    {"disable_allgather", K::kBool, U::kNoEffect, "[false]", kOwnBuckets},

    // ZeRO
    {"zero_optimization", K::kSection, U::kRead},
    {"zero_optimization.stage", K::kNumber, U::kRead},
    {"zero_optimization.overlap_comm", K::kBool, U::kRead},
    {"zero_optimization.contiguous_gradients", K::kBool, U::kNoEffect, "[true]",
     kOwnBuckets},
    {"zero_optimization.reduce_scatter", K::kBool, U::kNoEffect, "[true]",
     "Heddle reduces and scatters from stage 1 on"},
    {"zero_optimization.reduce_bucket_size", K::kNumber, U::kRead},
    {"zero_optimization.use_multi_rank_bucket_allreduce", K::kBool,
     U::kNoEffect, "[true]", kOwnBuckets},
    {"zero_optimization.allgather_partitions", K::kBool, U::kNoEffect, "[true]",
     kOwnBuckets},
    {"zero_optimization.allgather_bucket_size", K::kNumber, U::kNoEffect, "",
     kOwnBuckets},
    {"zero_optimization.load_from_fp32_weights", K::kBool, U::kRefused,
     "[true]", "masters always start from the weights as they are given"},
    {"zero_optimization.elastic_checkpoint", K::kBool, U::kNoEffect, "[false]",
     "every checkpoint of Heddle's loads under another number of ranks"},
    {"zero_optimization.offload_param", K::kSection, U::kRead},
    {"zero_optimization.offload_param.device", K::kString, U::kRefused,
     "[\"none\"]", kOffload},
    {"zero_optimization.offload_param.nvme_path", K::kAny, U::kNoEffect,
     "[null]", kOffload},
    {"zero_optimization.offload_param.buffer_count", K::kNumber, U::kNoEffect,
     "", kOffload},
    {"zero_optimization.offload_param.buffer_size", K::kNumber, U::kNoEffect,
     "", kOffload},
    {"zero_optimization.offload_param.max_in_cpu", K::kNumber, U::kNoEffect, "",
     kOffload},
    {"zero_optimization.offload_param.pin_memory", K::kBool, U::kNoEffect,
     "[false]", kOffload},
    {"zero_optimization.offload_optimizer", K::kSection, U::kRead},
    {"zero_optimization.offload_optimizer.device", K::kString, U::kRefused,
     "[\"none\"]", kOffload},
    {"zero_optimization.offload_optimizer.nvme_path", K::kAny, U::kNoEffect,
     "[null]", kOffload},
    {"zero_optimization.offload_optimizer.buffer_count", K::kNumber,
     U::kNoEffect, "", kOffload},
    {"zero_optimization.offload_optimizer.pin_memory", K::kBool, U::kNoEffect,
     "[false]", kOffload},
    {"zero_optimization.offload_optimizer.pipeline_read", K::kBool,
     U::kNoEffect, "[false]", kOffload},
    {"zero_optimization.offload_optimizer.pipeline_write", K::kBool,
     U::kNoEffect, "[false]", kOffload},
    {"zero_optimization.offload_optimizer.fast_init", K::kBool, U::kNoEffect,
     "[false]", kOffload},
    {"zero_optimization.offload_optimizer.ratio", K::kNumber, U::kNoEffect,
     "[1, 1.0]", kOffload},
    {"zero_optimization.cpu_offload", K::kBool, U::kRefused, "[false]",
     kOffload},
    {"zero_optimization.cpu_offload_param", K::kBool, U::kRefused, "[false]",
     kOffload},
    {"zero_optimization.cpu_offload_use_pin_memory", K::kBool, U::kNoEffect,
     "[false]", kOffload},
    {"zero_optimization.zenflow", K::kAny, U::kRefused, "[null]", kOffload},
    {"zero_optimization.sub_group_size", K::kNumber, U::kNoEffect, "",
     "the update is one kernel over all of a rank's state"},
    {"zero_optimization.stage3_prefetch_bucket_size", K::kNumber, U::kRead},
    {"zero_optimization.stage3_param_persistence_threshold", K::kNumber,
     U::kNoEffect, "", kOwnSchedule},
    {"zero_optimization.stage3_model_persistence_threshold", K::kNumber,
     U::kNoEffect, "", kOwnSchedule},
    {"zero_optimization.stage3_max_live_parameters", K::kNumber, U::kRead},
    {"zero_optimization.stage3_max_reuse_distance", K::kNumber, U::kNoEffect,
     "", kOwnSchedule},
    {"zero_optimization.stage3_module_granularity_threshold", K::kNumber,
     U::kNoEffect, "[0]", kOwnSchedule},
    {"zero_optimization.stage3_use_all_reduce_for_fetch_params", K::kBool,
     U::kNoEffect, "[false]", kOwnBuckets},
    {"zero_optimization.stage3_allgather_sequential", K::kBool, U::kNoEffect,
     "[false]", kOwnBuckets},
    {"zero_optimization.stage3_partition_stream_chunk_size", K::kNumber,
     U::kNoEffect, "[0]", kOwnBuckets},
    {"zero_optimization.stage3_gather_16bit_weights_on_model_save", K::kBool,
     U::kNoEffect, "[true]",
     "what is saved is always whole, in the model's own type"},
    {"zero_optimization.stage3_gather_fp16_weights_on_model_save", K::kBool,
     U::kNoEffect, "[true]",
     "what is saved is always whole, in the model's own type"},
    {"zero_optimization.ignore_unused_parameters", K::kBool, U::kRefused,
     "[true]", "parameters that the step does not use stay as they are"},
    {"zero_optimization.legacy_stage1", K::kBool, U::kNoEffect, "[false]",
     kOwnBuckets},
    {"zero_optimization.round_robin_gradients", K::kBool, U::kNoEffect,
     "[false]", kOwnBuckets},
    {"zero_optimization.zero_hpz_partition_size", K::kNumber, U::kRefused,
     "[0, 1]", kNested},
    {"zero_optimization.zero_quantized_weights", K::kBool, U::kRefused,
     "[false]", kQuantized},
    {"zero_optimization.zero_quantized_nontrainable_weights", K::kBool,
     U::kRefused, "[false]", kQuantized},
    {"zero_optimization.zero_quantized_gradients", K::kBool, U::kRefused,
     "[false]", kQuantized},
    {"zero_optimization.zeropp_loco_param", K::kAny, U::kRefused, "[null]",
     kQuantized},
    {"zero_optimization.mics_shard_size", K::kNumber, U::kRefused, "[-1]",
     kNested},
    {"zero_optimization.mics_hierarchical_params_gather", K::kBool, U::kRefused,
     "[false]", kNested},
    {"zero_optimization.memory_efficient_linear", K::kBool, U::kNoEffect,
     "[true]", "the captured step keeps what its backward reads"},
    {"zero_optimization.pipeline_loading_checkpoint", K::kBool, U::kNoEffect,
     "[false]", "checkpoints are read by name"},
    {"zero_optimization.override_module_apply", K::kBool, U::kNoEffect,
     "[true]", "Heddle changes no module"},
    {"zero_optimization.log_trace_cache_warnings", K::kBool, U::kNoEffect,
     "[false]", kOwnSchedule},
    {"zero_optimization.enable_sanity_checks", K::kBool, U::kNoEffect, "[true]",
     "every plan is checked when it is loaded"},
    {"zero_optimization.save_muon_momentum_buffer_in_memory", K::kBool,
     U::kNoEffect, "[true]", "state stays on the device"},
    {"zero_optimization.leaf_module", K::kAny, U::kNoEffect, "", kOwnSchedule},

    // Compiling
    {"compile", K::kSection, U::kRead},
    {"compile.deepcompile", K::kBool, U::kNoEffect, "[true]",
     "Heddle compiles the whole step whatever this says"},
    {"compile.passes", K::kList, U::kRead},
    {"compile.offload_parameters", K::kBool, U::kRefused, "[false]", kOffload},
    {"compile.offload_opt_states", K::kBool, U::kRefused, "[false]", kOffload},
    {"compile.offload_activation", K::kBool, U::kRefused, "[false]", kOffload},
    {"compile.offload_adam_states", K::kBool, U::kRefused, "[false]", kOffload},
    {"compile.free_activation", K::kBool, U::kNoEffect, "[true]",
     "activations lie in a planned arena and share its bytes"},
    {"compile.free_activation_threshold", K::kNumber, U::kNoEffect, "",
     "activations lie in a planned arena and share its bytes"},
    {"compile.double_buffer", K::kBool, U::kNoEffect, "[true]", kOwnSchedule},
    {"compile.symmetric_memory", K::kBool, U::kNoEffect, "[false]",
     "collectives are NCCL's"},
    {"compile.debug_log", K::kBool, U::kNoEffect, "[false]",
     "heddle-opt --save-phases shows every phase"},
    {"compile.sync_before_reduce", K::kBool, U::kNoEffect, "[false]",
     kOwnSchedule},
    {"compile.sync_after_reduce", K::kBool, U::kNoEffect, "[false]",
     kOwnSchedule},
    {"compile.sync_before_allgather", K::kBool, U::kNoEffect, "[false]",
     kOwnSchedule},
    {"compile.sync_after_allgather", K::kBool, U::kNoEffect, "[false]",
     kOwnSchedule},
    {"compile.keep_int_input_tensors", K::kBool, U::kNoEffect, "[true]",
     kOwnSchedule},
    {"compile.keep_all_input_tensors", K::kBool, U::kNoEffect, "[false]",
     kOwnSchedule},
    {"graph_harvesting", K::kBool, U::kNoEffect, "[false]",
     "heddle.Plan(cuda_graph=...) says whether sections become CUDA graphs"},

    // Axes
    {"data_parallel_size", K::kNumber, U::kRead},
    {"sequence_parallel_size", K::kNumber, U::kRead},
    {"tensor_parallel", K::kSection, U::kRead},
    {"tensor_parallel.autotp_size", K::kNumber, U::kRefused, "[0, 1]",
     kOneTensorAxis},
    {"tensor_parallel.enabled", K::kBool, U::kRefused, "[false]",
     kOneTensorAxis},
    {"tensor_parallel.preset_model", K::kAny, U::kRefused, "[null]",
     kOneTensorAxis},
    {"tensor_parallel.partition_config", K::kAny, U::kRefused, "[null]",
     kOneTensorAxis},
    {"use_data_before_expert_parallelism", K::kBool, U::kRefused, "[false]",
     "the order of the axes is Heddle's mesh"},
    {"expert_parallel", K::kSection, U::kRead},
    {"expert_parallel.enabled", K::kBool, U::kRead},
    {"expert_parallel.autoep_size", K::kNumber, U::kRead},
    {"expert_parallel.expert_tensor_parallel_size", K::kNumber, U::kRefused,
     "[1]", kOneTensorAxis},
    {"expert_parallel.preset_model", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.use_grouped_mm", K::kBool, U::kNoEffect, "", kExperts},
    {"expert_parallel.moe_layer_pattern", K::kAny, U::kNoEffect, "[null]",
     kExperts},
    {"expert_parallel.router_pattern", K::kAny, U::kNoEffect, "[null]",
     kExperts},
    {"expert_parallel.expert_pattern", K::kAny, U::kNoEffect, "[null]",
     kExperts},
    {"expert_parallel.expert_w1", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.expert_w2", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.expert_w3", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.score_func", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.score_apply", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.route_norm", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.route_scale", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.top_k", K::kAny, U::kNoEffect, "[null]", kExperts},
    {"expert_parallel.num_expert_groups", K::kAny, U::kNoEffect, "[null]",
     kExperts},
    {"expert_parallel.shared_experts_pattern", K::kAny, U::kNoEffect, "[null]",
     kExperts},
    {"pipeline", K::kAny, U::kRefused, "[null]", "Heddle has no pipeline axis"},

    // Checkpoints
    {"checkpoint", K::kSection, U::kRead},
    {"checkpoint.tag_validation", K::kString, U::kNoEffect, "",
     "a version is named by its step"},
    {"checkpoint.load_universal", K::kBool, U::kRefused, "[false]",
     "Heddle reads its own checkpoints, under any number of ranks, and Hugging "
     "Face weights"},
    {"checkpoint.use_node_local_storage", K::kBool, U::kRefused, "[false]",
     "all ranks write into one folder"},
    {"checkpoint.parallel_write", K::kAny, U::kNoEffect, "[null]",
     "Heddle's writer works beside the step anyway"},
    {"nebula", K::kSwitch, U::kRefused, "", "use step.save_checkpoint"},
    {"datastates_ckpt", K::kAny, U::kRefused, "[null]",
     "use step.save_checkpoint"},

    // Logs
    {"steps_per_print", K::kAny, U::kNoEffect, "[null]", kOwnLog},
    {"wall_clock_breakdown", K::kBool, U::kNoEffect, "[false]", kInspect},
    {"memory_breakdown", K::kBool, U::kNoEffect, "[false]", kInspect},
    {"dump_state", K::kBool, U::kNoEffect, "[false]", kOwnLog},
    {"log_level", K::kAny, U::kNoEffect, "[null]", kOwnLog},
    {"timers", K::kAny, U::kNoEffect, "[null]", kInspect},
    {"comms_logger", K::kSwitch, U::kNoEffect, "", kInspect},
    {"flops_profiler", K::kSwitch, U::kNoEffect, "", kInspect},
    {"tensorboard", K::kSwitch, U::kNoEffect, "", kMonitor},
    {"wandb", K::kSwitch, U::kNoEffect, "", kMonitor},
    {"csv_monitor", K::kSwitch, U::kNoEffect, "", kMonitor},
    {"comet", K::kSwitch, U::kNoEffect, "", kMonitor},

    // Everything else
    {"activation_checkpointing", K::kSection, U::kRead},
    {"activation_checkpointing.partition_activations", K::kBool, U::kRefused,
     "[false]", kOneTensorAxis},
    {"activation_checkpointing.cpu_checkpointing", K::kBool, U::kRefused,
     "[false]", kOffload},
    {"activation_checkpointing.contiguous_memory_optimization", K::kBool,
     U::kNoEffect, "[false]", "activations lie in a planned arena"},
    {"activation_checkpointing.number_checkpoints", K::kAny, U::kNoEffect,
     "[null]", "the model's own checkpointing is captured"},
    {"activation_checkpointing.synchronize_checkpoint_boundary", K::kBool,
     U::kNoEffect, "[false]", kOwnSchedule},
    {"activation_checkpointing.profile", K::kBool, U::kNoEffect, "[false]",
     kInspect},
    {"aio", K::kAny, U::kNoEffect, "[null]", kOffload},
    {"vocabulary_size", K::kAny, U::kNoEffect, "[null]",
     "the captured step has it"},
    {"sparse_attention", K::kAny, U::kRefused, "[null]",
     "attention is the model's own"},
    {"elasticity", K::kSwitch, U::kRefused, "",
     "the number of ranks is fixed for a run; resume the checkpoint with "
     "another one"},
    {"autotuning", K::kSwitch, U::kRefused, "", "Heddle has no tuner"},
    {"data_efficiency", K::kSwitch, U::kRefused, "", kData},
    {"curriculum_learning", K::kSwitch, U::kRefused, "", kData},
    {"progressive_layer_drop", K::kSwitch, U::kRefused, "",
     "layers are the model's own"},
    {"eigenvalue", K::kSwitch, U::kRefused, "", "Heddle computes none"},
    {"quantize_training", K::kSwitch, U::kRefused, "",
     "Heddle quantizes nothing"},
    {"compression_training", K::kAny, U::kRefused, "[null, {}]",
     "Heddle quantizes and prunes nothing"},
    {"hybrid_engine", K::kSwitch, U::kRefused, "",
     "Heddle trains; generate with the saved model"},
    {"weight_quantization", K::kAny, U::kRefused, "[null]",
     "Heddle quantizes nothing"},
};

}  // namespace

const std::vector<DeepSpeedKey>& DeepSpeedKeys() { return kKeys; }

const DeepSpeedKey* FindDeepSpeedKey(const std::string& path) {
  for (const DeepSpeedKey& key : kKeys) {
    if (path == key.path) return &key;
  }
  return nullptr;
}

std::string NearestDeepSpeedKey(const std::string& path) {
  const size_t dot = path.rfind('.');
  const std::string prefix =
      dot == std::string::npos ? "" : path.substr(0, dot + 1);
  std::string nearest;
  size_t best = path.size() - prefix.size();
  for (const DeepSpeedKey& key : kKeys) {
    const std::string known = key.path;
    if (known.rfind(prefix, 0) != 0 ||
        known.find('.', prefix.size()) != std::string::npos)
      continue;
    const size_t distance = plan::EditDistance(path, known);
    if (distance >= best) continue;
    best = distance;
    nearest = known;
  }
  return nearest.empty() ? "" : "; did you mean '" + nearest + "'?";
}

}  // namespace heddle
