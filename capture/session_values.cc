// Tensors → value numbers and back: arguments of the step, identity by storage
// and geometry, and the twins on meta that shapes are inferred with. Invariant:
// one storage of the step has one twin, so that aliasing on meta is aliasing in
// the step.
#include <ATen/ATen.h>

#include <algorithm>

#include "capture/session.h"
#include "capture/trace_device.h"

namespace heddle::capture {

size_t Session::KeyHash::operator()(const Key& key) const {
  size_t hash = std::hash<const void*>()(key.storage) * 31 +
                static_cast<size_t>(key.dtype);
  for (int64_t n : key.geometry)
    hash = hash * 1000003 ^ std::hash<int64_t>()(n);
  return hash;
}

Session::Key Session::KeyOf(const at::Tensor& tensor) const {
  Key key{tensor.storage().unsafeGetStorageImpl(), tensor.scalar_type(), {}};
  key.geometry.reserve(2 * tensor.dim() + 1);
  key.geometry.assign(tensor.sizes().begin(), tensor.sizes().end());
  key.geometry.insert(key.geometry.end(), tensor.strides().begin(),
                      tensor.strides().end());
  key.geometry.push_back(tensor.storage_offset());
  return key;
}

int32_t Session::StorageIdOf(const at::Tensor& tensor) {
  const c10::Storage& storage = tensor.storage();
  auto [it, fresh] = storage_ids_.try_emplace(
      storage.unsafeGetStorageImpl(), static_cast<int32_t>(storages_.size()));
  if (fresh) {
    storages_.push_back(storage);
    meta_storages_.emplace_back();
  }
  return it->second;
}

ValueId Session::NewValue(const at::Tensor& tensor) {
  ValueInfo info;
  info.dtype = tensor.scalar_type();
  info.sizes = tensor.sizes().vec();
  info.strides = tensor.strides().vec();
  info.offset = tensor.storage_offset();
  info.storage = StorageIdOf(tensor);
  auto id = static_cast<ValueId>(tape_.values.size());
  tape_.values.push_back(std::move(info));
  values_[KeyOf(tensor)] = id;
  return id;
}

at::Tensor Session::AddParameter(at::IntArrayRef sizes, at::IntArrayRef strides,
                                 at::ScalarType dtype,
                                 std::vector<std::string> names, bool trainable,
                                 std::string role) {
  int64_t bytes = static_cast<int64_t>(at::detail::computeStorageNbytes(
      sizes, strides, c10::elementSize(dtype)));
  at::Tensor tensor =
      MakeTraceTensor(MakeTraceStorage(bytes), dtype, sizes, strides, 0);
  tape_.bindings.push_back({Binding::Kind::kParameter,
                            std::move(names),
                            trainable,
                            std::move(role),
                            NewValue(tensor),
                            {}});
  return tensor;
}

at::Tensor Session::AddBuffer(const at::Tensor& data, std::string name,
                              bool persistent) {
  TORCH_CHECK(persistent || !data.is_meta(),
              "heddle.capture: the non-persistent buffer '", name,
              "' lies on the meta device, so its values are nowhere to be "
              "found. Give it real values, or make it persistent.");
  at::Tensor tensor = MakeTraceTensor(
      MakeTraceStorage(
          static_cast<int64_t>(data.numel() * data.element_size())),
      data.scalar_type(), data.sizes(), data.contiguous().strides(), 0);
  at::Tensor value =
      persistent ? at::Tensor() : data.detach().cpu().contiguous();
  tape_.bindings.push_back({Binding::Kind::kBuffer,
                            {std::move(name)},
                            persistent,
                            "",
                            NewValue(tensor),
                            value});
  return tensor;
}

at::Tensor Session::AddInput(const at::Tensor& data, std::string name) {
  TORCH_CHECK(data.layout() == at::kStrided && !data.is_nested(),
              "heddle.capture: the batch entry '", name, "' is ",
              data.is_nested() ? "nested" : "sparse", "; give a dense tensor");
  // Layout decides which kernels run and how they round, so the example's is
  // kept; one with gaps or overlaps becomes row-major, as every run's copy is.
  at::Tensor shape = at::empty_like(data, data.options().device(at::kMeta),
                                    at::MemoryFormat::Preserve);
  at::Tensor tensor = MakeTraceTensor(
      MakeTraceStorage(
          static_cast<int64_t>(data.numel() * data.element_size())),
      data.scalar_type(), data.sizes(), shape.strides(), 0);
  tape_.bindings.push_back({Binding::Kind::kInput,
                            {std::move(name)},
                            false,
                            "",
                            NewValue(tensor),
                            {}});
  if (!data.is_floating_point() && !data.is_complex() && !data.is_meta()) {
    at::Tensor host = at::empty_strided(shape.sizes(), shape.strides(),
                                        data.options().device(at::kCPU));
    host_inputs_[StorageIdOf(tensor)] = host.copy_(data);
  }
  return tensor;
}

void Session::AddResult(std::string kind, std::string name,
                        const at::Tensor& tensor) {
  TORCH_CHECK(IsTraced(tensor), "heddle.capture: the ", kind, " '", name,
              "' was not computed by the captured step (it lies on ",
              tensor.device(), ")");
  tape_.results.push_back(
      {std::move(kind), std::move(name), Use(tensor, "result")});
}

ValueId Session::Use(const at::Tensor& tensor, const std::string& op) {
  if (!tensor.defined()) return -1;
  if (!IsTraced(tensor)) return UseHostTensor(tensor, op);
  Key key = KeyOf(tensor);
  auto it = values_.find(key);
  if (it != values_.end()) return it->second;
  TORCH_CHECK(storage_ids_.count(tensor.storage().unsafeGetStorageImpl()),
              "heddle.capture: ", Place(op),
              " reads a tensor of another capture");
  // A geometry that no recorded operator produced: set_data or `.data =` gave
  // an existing storage a new shape. Say it as the view that it is.
  static const c10::OperatorHandle as_strided =
      c10::Dispatcher::singleton().findSchemaOrThrow("aten::as_strided", "");
  const auto& infos = tape_.values;
  int32_t storage = StorageIdOf(tensor);
  auto source =
      std::find_if(infos.begin(), infos.end(), [&](const ValueInfo& info) {
        return info.storage == storage && info.dtype == tensor.scalar_type();
      });
  TORCH_CHECK(source != infos.end(), "heddle.capture: ", Place(op),
              " reads a storage under another dtype than it was made with, "
              "without a view operator in between");
  OpRecord record;
  record.name = as_strided.operator_name();
  record.schema = &as_strided.schema();
  record.arguments = {{Argument::Kind::kTensor,
                       {static_cast<ValueId>(source - infos.begin())},
                       {}},
                      {Argument::Kind::kConstant, {}, tensor.sizes()},
                      {Argument::Kind::kConstant, {}, tensor.strides()},
                      {Argument::Kind::kConstant, {}, tensor.storage_offset()}};
  record.phase = phase_;
  record.scope = scopes_.back();
  ValueId id = NewValue(tensor);
  record.results = {id};
  tape_.ops.push_back(std::move(record));
  return id;
}

at::Tensor Session::MetaOf(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  int32_t id = StorageIdOf(tensor);
  if (!meta_storages_[id]) {
    meta_storages_[id] = c10::Storage(
        c10::Storage::use_byte_size_t(), tensor.storage().sym_nbytes(),
        c10::DataPtr(nullptr, c10::Device(c10::DeviceType::Meta)), nullptr,
        false);
    meta_ids_[meta_storages_[id].unsafeGetStorageImpl()] = id;
  }
  at::Tensor meta = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(meta_storages_[id]),
      c10::DispatchKeySet(c10::DispatchKey::Meta), tensor.dtype());
  meta.unsafeGetTensorImpl()->set_sizes_and_strides(
      tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return meta;
}

at::Tensor Session::FromMeta(const at::Tensor& meta) {
  if (!meta.defined()) return meta;
  const c10::Storage& storage = meta.storage();
  auto it = meta_ids_.find(storage.unsafeGetStorageImpl());
  int32_t id;
  if (it != meta_ids_.end()) {
    id = it->second;
  } else {
    c10::Storage fresh =
        MakeTraceStorage(static_cast<int64_t>(storage.nbytes()));
    id = static_cast<int32_t>(storages_.size());
    storage_ids_[fresh.unsafeGetStorageImpl()] = id;
    storages_.push_back(std::move(fresh));
    meta_storages_.push_back(storage);
    meta_ids_[storage.unsafeGetStorageImpl()] = id;
  }
  return MakeTraceTensor(storages_[id], meta.scalar_type(), meta.sizes(),
                         meta.strides(), meta.storage_offset());
}

}  // namespace heddle::capture
