// Generated headers are found by workspace path.
#include "mlir/IR/Dialect.h"
#include "tools/setup/smoke/smoke_dialect.h.inc"
#include "tools/setup/smoke/smoke_generated.h"

int main() {
  flatbuffers::FlatBufferBuilder builder;
  heddle::smoke::SmokeT smoke;
  smoke.n = 3;
  builder.Finish(heddle::smoke::Smoke::Pack(builder, &smoke));
  return heddle::smoke::GetSmoke(builder.GetBufferPointer())->n() == 3 ? 0 : 1;
}
