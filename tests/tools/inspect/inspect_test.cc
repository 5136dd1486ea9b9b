// Descriptions of a captured Llama (2 layers, hidden 48, intermediate 80, 4
// heads of 12, 2 for keys, vocabulary 96, batch 2 x 24) and of fixture plans.
// Invariant: expected numbers come from the model's configuration or from the
// plan's own fields, never from the code under test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "nlohmann/json.hpp"
#include "runtime/plan/plan.h"
#include "tests/fixtures/plan_builder.h"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kLlama[] = "tests/tools/inspect/captured/llama.mlir";
constexpr int64_t kLayers = 2, kHidden = 48, kIntermediate = 80, kHeads = 4,
                  kHead = 12, kKeyHeads = 2, kVocabulary = 96, kBatch = 2,
                  kSequence = 24;

std::string contentOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

Program llama() {
  absl::StatusOr<Program> program = readProgram(kLlama);
  EXPECT_TRUE(program.ok()) << program.status();
  return program.ok() ? *std::move(program) : Program();
}

Program described(const plan::Plan& plan) {
  const std::vector<uint8_t> bytes = plan::Serialize(plan);
  absl::StatusOr<Program> program = readPlanBytes(
      "fixture.plan", std::string(bytes.begin(), bytes.end()), "step.plan");
  EXPECT_TRUE(program.ok()) << program.status();
  return program.ok() ? *std::move(program) : Program();
}

int64_t layerWeights() {
  return 2 * kHidden * kHeads * kHead + 2 * kHidden * kKeyHeads * kHead +
         3 * kHidden * kIntermediate;
}

TEST(Step, HoldsTheModelsParameters) {
  const Program program = llama();
  const int64_t norms = (2 * kLayers + 1) * kHidden;
  EXPECT_EQ(moduleTree(program)->elements,
            2 * kVocabulary * kHidden + kLayers * layerWeights() + norms);
  EXPECT_EQ(program.target, "cpu");
  EXPECT_EQ(program.precision, "fp32");
  const std::string tree = moduleTreeText(program, 8);
  EXPECT_THAT(tree, HasSubstr("layers"));
  EXPECT_THAT(tree, HasSubstr("0-1"));
  EXPECT_THAT(tree, HasSubstr("2 equal"));
}

TEST(Step, FlopsAgreeWithTheClosedForm) {
  const Program program = llama();
  const int64_t weights = kLayers * layerWeights() + kVocabulary * kHidden;
  // Scores and their product with the values forward; both again, and the
  // gradients of query, key and value: seven products in all.
  const int64_t attention =
      7 * 2 * kLayers * kBatch * kHeads * kSequence * kSequence * kHead;
  const double expected = 6.0 * weights * kBatch * kSequence + attention;
  const std::optional<ClosedForm> form =
      closedForm(program, program.sections[0]);
  ASSERT_TRUE(form.has_value());
  EXPECT_EQ(form->weights, weights);
  EXPECT_EQ(form->tokens, kBatch * kSequence);
  EXPECT_NEAR(form->counted / expected, 1.0, 0.01);
  EXPECT_NEAR(static_cast<double>(form->expected()) / expected, 1.0, 0.01);
}

TEST(Step, EveryOpOfALlamaIsStructured) {
  const Share share = countShare(llama().sections[0]);
  EXPECT_EQ(share.structuredFlops, share.flops);
  EXPECT_GE(share.structuredOps, share.ops * 95 / 100);
}

TEST(Step, MemoryCurveIsTheSumOfWhatLives) {
  const Program program = llama();
  const Section& section = program.sections[0];
  const MemoryCurve curve = memoryCurve(program, section);
  ASSERT_EQ(curve.at.size(), section.ops.size());
  int64_t resident = 0;
  for (const Storage& storage : program.storages)
    if (storage.resident) resident += storage.bytes;
  for (size_t op :
       {size_t{0}, section.ops.size() / 2, section.ops.size() - 1}) {
    int64_t live = resident;
    for (const Lifetime& lifetime : section.lifetimes)
      if (lifetime.first <= static_cast<int>(op) &&
          static_cast<int>(op) <= lifetime.last)
        live += program.storages[lifetime.storage].bytes;
    EXPECT_EQ(curve.total(op), live) << "op " << op;
    EXPECT_LE(live, curve.total(curve.peak));
  }
  // At the end exactly the gradients, which have the parameters' sizes, and the
  // loss are there beside what was given.
  const CategoryBytes& end = curve.at.back();
  EXPECT_EQ(end[static_cast<size_t>(Category::kGradient)],
            end[static_cast<size_t>(Category::kParameter)]);
  EXPECT_GE(end[static_cast<size_t>(Category::kOutput)], 4);
  EXPECT_EQ(end[static_cast<size_t>(Category::kActivation)], 0);
}

TEST(Step, ActivationsLiveLongest) {
  const Program program = llama();
  const std::vector<Lifetime> longest =
      longestLived(program, program.sections[0], 5);
  ASSERT_EQ(longest.size(), 5u);
  for (size_t i = 1; i < longest.size(); ++i)
    EXPECT_GE(longest[i - 1].last - longest[i - 1].first,
              longest[i].last - longest[i].first);
}

// A chain of `count` products and sums, each with a location of its own, as
// long as a captured 8B step.
std::string longProgram(int count) {
  std::string text =
      "\"builtin.module\"() ({\n\"graph.step\"() <{arg_roles = "
      "[#graph.param<[\"w\"], true, \"matrix\">, #graph.input<\"x\">], "
      "format_version = 1 : i64, precision = \"bf16\", result_roles = "
      "[#graph.output<\"y\">], target = \"cuda\", torch_version = "
      "\"2.11.0\"}> ({\n^bb0(%w: tensor<4096x4096xbf16>, %v0: "
      "tensor<4096x4096xbf16>):\n";
  for (int i = 0; i < count; ++i) {
    const std::string layer = std::to_string(i / 200);
    text += "%v" + std::to_string(i + 1) + " = " +
            (i % 2 ? "\"graph.mm\"(%v" : "\"graph.add.Tensor\"(%v") +
            std::to_string(i) + ", %w)" +
            (i % 2 ? "" : " <{alpha = 1 : i64}>") +
            " {graph.node = " + std::to_string(i) +
            " : i64, graph.phase = #graph.phase<" +
            (i < count / 3 ? "forward" : "backward") +
            ">} : (tensor<4096x4096xbf16>, tensor<4096x4096xbf16>) -> "
            "tensor<4096x4096xbf16> loc(\"model.layers." +
            layer +
            ".mlp.up_proj\"(\"modeling_llama.py\":" + std::to_string(i + 1) +
            ":0))\n";
  }
  return text + "\"graph.return\"(%v" + std::to_string(count) +
         ") : (tensor<4096x4096xbf16>) -> ()\n}) : () -> ()\n}) : () -> "
         "()\n";
}

TEST(Step, ASummaryOfSevenThousandOpsTakesLessThanTwoSeconds) {
  const std::string text = longProgram(7200);
  EXPECT_GT(text.size(), 1500000u);
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<Program> program = readMlir("long.mlir", text);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_THAT(summaryText(*program), HasSubstr("Section step: 7200 ops"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST(Refusal, SizesThatCannotBeCounted) {
  for (const char* size :
       {"?", "9000000000000000000x9000000000000000000", "281474976710657"}) {
    const std::string type = std::string("tensor<") + size + "xf32>";
    const std::string text =
        "\"graph.step\"() <{arg_roles = [#graph.input<\"x\">], "
        "format_version = 1 : i64, precision = \"fp32\", result_roles = "
        "[#graph.output<\"x\">], target = \"cpu\", torch_version = "
        "\"2.11.0\"}> ({\n^bb0(%x: " +
        type + "):\n\"graph.return\"(%x) : (" + type +
        ") -> ()\n}) : () -> ()\n";
    EXPECT_FALSE(readMlir("x.mlir", text).ok()) << size;
  }
}

// The rules of Model Explorer's input (its Graph, GraphNode, IncomingEdge,
// MetadataItem and KeyValue interfaces).
void expectKeyValues(const json& list) {
  ASSERT_TRUE(list.is_array());
  for (const json& item : list) {
    ASSERT_EQ(item.size(), 2u) << item;
    EXPECT_TRUE(item.at("key").is_string() && item.at("value").is_string())
        << item;
  }
}

void expectModelExplorer(const json& collection) {
  ASSERT_TRUE(collection.is_object());
  EXPECT_TRUE(collection.at("label").is_string());
  ASSERT_TRUE(collection.at("graphs").is_array());
  std::set<std::string> graphs;
  for (const json& graph : collection["graphs"]) {
    EXPECT_TRUE(graphs.insert(graph.at("id").get<std::string>()).second)
        << "graph ids are unique";
    std::map<std::string, std::set<std::string>> outputs;
    for (const json& node : graph.at("nodes")) {
      std::set<std::string>& own = outputs[node.at("id").get<std::string>()];
      if (node.contains("outputsMetadata"))
        for (const json& output : node["outputsMetadata"])
          own.insert(output.at("id").get<std::string>());
    }
    EXPECT_EQ(outputs.size(), graph["nodes"].size()) << "node ids are unique";
    for (const json& node : graph["nodes"]) {
      static const std::set<std::string> known = {"id",
                                                  "label",
                                                  "namespace",
                                                  "attrs",
                                                  "incomingEdges",
                                                  "outputsMetadata",
                                                  "inputsMetadata",
                                                  "subgraphIds",
                                                  "style",
                                                  "config"};
      for (const auto& [key, value] : node.items())
        EXPECT_TRUE(known.count(key)) << key;
      EXPECT_TRUE(node.at("label").is_string());
      const std::string place = node.at("namespace").get<std::string>();
      EXPECT_TRUE(place.empty() ||
                  (place.front() != '/' && place.back() != '/'))
          << place;
      expectKeyValues(node.at("attrs"));
      std::set<std::string> inputs;
      for (const json& edge : node.at("incomingEdges")) {
        EXPECT_EQ(edge.size(), 3u);
        ASSERT_TRUE(outputs.count(edge.at("sourceNodeId").get<std::string>()))
            << edge;
        EXPECT_TRUE(outputs[edge["sourceNodeId"]].count(
            edge.at("sourceNodeOutputId").get<std::string>()))
            << edge;
        EXPECT_TRUE(
            inputs.insert(edge.at("targetNodeInputId").get<std::string>())
                .second)
            << edge;
      }
      if (node.contains("outputsMetadata"))
        for (const json& output : node["outputsMetadata"])
          expectKeyValues(output.at("attrs"));
    }
    for (const auto& [place, attributes] :
         graph.at("groupNodeAttributes").items())
      for (const auto& [key, value] : attributes.items())
        EXPECT_TRUE(value.is_string()) << place << " " << key;
  }
}

TEST(ModelExplorer, FollowsTheSchemaWithModulesAsNamespaces) {
  const json collection = json::parse(modelExplorerJson(llama()));
  expectModelExplorer(collection);
  std::set<std::string> places;
  for (const json& node : collection["graphs"][0]["nodes"])
    places.insert(node["namespace"].get<std::string>());
  EXPECT_TRUE(places.count("model/layers/0/self_attn/q_proj"));
  EXPECT_TRUE(places.count("backward/model/layers/1/mlp/up_proj"));
}

TEST(ModelExplorer, FollowsTheSchemaForPlans) {
  expectModelExplorer(
      json::parse(modelExplorerJson(described(testing::TrainPlan(2, 8)))));
  expectModelExplorer(
      json::parse(modelExplorerJson(described(testing::RandomPlan(1, 3, 12)))));
}

TEST(Plan, StreamsAreThreadsAndWaitsAreKept) {
  const Program program = described(testing::RandomPlan(1, 3, 40));
  for (const Section& section : program.sections) {
    const std::vector<Span> spans = predict(program, section).spans;
    std::map<int, double> done, signalled;
    for (size_t i = 0; i < section.ops.size(); ++i) {
      const Op& op = section.ops[i];
      EXPECT_GE(spans[i].start, done[op.stream]) << "streams run in order";
      for (int event : op.waits) EXPECT_GE(spans[i].start, signalled.at(event));
      done[op.stream] = spans[i].start + spans[i].duration;
      if (op.signal >= 0) signalled[op.signal] = done[op.stream];
    }
  }
  const json trace = json::parse(traceJson(program));
  std::set<int> threads;
  size_t complete = 0;
  std::map<int, int> flows;
  for (const json& event : trace.at("traceEvents")) {
    const std::string phase = event.at("ph").get<std::string>();
    if (phase == "X") {
      ++complete;
      threads.insert(event.at("tid").get<int>());
      EXPECT_GE(event.at("dur").get<double>(), 0);
    }
    if (phase == "s") ++flows[event.at("id").get<int>()];
    if (phase == "f") --flows[event.at("id").get<int>()];
  }
  EXPECT_EQ(threads.size(), 3u);
  EXPECT_EQ(complete, program.sections[0].ops.size());
  EXPECT_FALSE(flows.empty());
  for (const auto& [id, open] : flows)
    EXPECT_EQ(open, 0) << "flow " << id << " begins and ends";
}

// One collective of 3 s on a stream of its own, 4 s of work beside it, 2 s of
// work that wait for both.
Program timed() {
  Program program;
  program.target = "cuda";
  program.precision = "bf16";
  program.streams = {"compute", "gather"};
  program.ranks = 2;
  Section section;
  section.name = "micro_first";
  for (auto [name, stream, seconds] : {std::tuple("all_gather", 1, 3.0),
                                       {"aten::mm", 0, 2.0},
                                       {"aten::mm", 0, 2.0}}) {
    Op op;
    op.name = op.kind = name;
    op.stream = stream;
    op.measured = seconds;
    section.ops.push_back(op);
  }
  section.ops[0].wireBytes = 1024;
  section.ops[0].signal = 0;
  section.ops[2].waits = {0};
  program.sections.push_back(section);
  return program;
}

// Worked out by hand: the gather runs from 0 to 3, work from 0 to 2 and from 3
// to 5, so from 2 to 3 nothing hides it. Counting what the collective itself
// takes as hidden (simulate's `work` holding all tasks) makes it 0.
TEST(Timeline, ExposedCommunicationIsSaidEverywhere) {
  Program program = timed();
  const Prediction prediction = predict(program, program.sections[0]);
  EXPECT_DOUBLE_EQ(prediction.end, 5);
  EXPECT_DOUBLE_EQ(prediction.collectives, 3);
  EXPECT_DOUBLE_EQ(prediction.exposed, 1);
  const std::string text = summaryText(program);
  EXPECT_THAT(text, HasSubstr("5 s; collectives 3 s, of which 1 s exposed "
                              "(20.0 % of the time)"));
  const std::vector<std::string> lines =
      timelineText(program, program.sections[0], prediction, 5);
  EXPECT_EQ(lines, (std::vector<std::string>{"██ ██", "███  "}));
  const json graph = json::parse(modelExplorerJson(program));
  EXPECT_EQ(graph["graphs"][0]["groupNodeAttributes"][""]["predicted"],
            predictionText(prediction));
  const std::string page = htmlPage(program);
  EXPECT_THAT(page, HasSubstr("\"exposed\":1.0"));
  EXPECT_THAT(page, HasSubstr("\"collectives\":3.0"));
  // On one stream nothing is hidden.
  for (Op& op : program.sections[0].ops) op.stream = 0;
  program.streams = {"compute"};
  EXPECT_DOUBLE_EQ(predict(program, program.sections[0]).exposed, 3);
}

TEST(Timeline, CollectivesArePricedByTheirBytes) {
  Program program = timed();
  program.ranks = 8;
  program.sections[0].ops[0].measured = -1;
  program.sections[0].ops[0].wireBytes = int64_t{340} * 1000 * 1000;
  EXPECT_NEAR(predict(program, program.sections[0]).collectives, 1.03e-3, 1e-5);
}

TEST(Plan, PeakIsAtLeastThePlansOwnLowerBound) {
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    const Program program = described(testing::RandomPlan(seed, 1, 30));
    const Section& section = program.sections[0];
    const MemoryCurve curve = memoryCurve(program, section);
    int64_t resident = 0;
    for (const Storage& storage : program.storages)
      if (storage.resident) resident += storage.bytes;
    EXPECT_LE(curve.total(curve.peak) - resident, section.scratchBytes)
        << "seed " << seed;
  }
}

// Bytes added up by hand: state and inputs in steps of 256 bytes, the largest
// scratch arena, and what the run reserved. A part that nobody knows has no
// number, and the sum says which.
TEST(DeviceMemory, IsWhatThePlanPlacesAndWhatLiesBeside) {
  Program program = described(testing::TrainPlan(2, 8));
  EXPECT_THAT(deviceMemory(program), IsEmpty());
  program.target = "cuda";
  int64_t resident = 0, scratch = 0;
  for (const Storage& storage : program.storages)
    if (storage.resident) resident += (storage.bytes + 255) / 256 * 256;
  for (const Section& section : program.sections)
    scratch = std::max(scratch, section.scratchBytes);
  ASSERT_GT(resident * scratch, 0);
  program.costs = "a GPU";
  program.reserved = {{"workspaces", 1000}, {"products", 2000}};
  int64_t known = 0;
  std::map<std::string, int64_t> parts;
  for (const DeviceBytes& part : deviceMemory(program)) {
    parts[part.what] = part.bytes;
    if (part.bytes > 0) known += part.bytes;
  }
  EXPECT_EQ(parts.at("scratch arena"), scratch);
  EXPECT_EQ(parts.at("inside operators"), 1000);
  EXPECT_EQ(parts.at("matrix products"), 2000);
  int64_t beside = 3000;
  for (const char* what : {"cuBLAS", "modules", "CUDA context"})
    beside += std::max<int64_t>(parts.at(what), 0);
  EXPECT_EQ(known, resident + scratch + beside);
  EXPECT_THAT(summaryText(program),
              HasSubstr(std::to_string(known) + " bytes"));
  // A run that counted everything leaves nothing to the table.
  program.reserved["process"] = 4000;
  EXPECT_THAT(summaryText(program),
              HasSubstr(std::to_string(resident + scratch + 7000) + " bytes"));
  program.reserved.clear();
  EXPECT_THAT(summaryText(program), HasSubstr("without inside operators"));
}

TEST(Plan, EverySectionIsShown) {
  const Program program = described(testing::TrainPlan(2, 8));
  const std::string text = summaryText(program);
  for (const char* section : {"micro_first", "micro_next", "boundary"})
    EXPECT_THAT(text, HasSubstr(section));
  EXPECT_THAT(text, HasSubstr("exp_avg_sq"));
}

TEST(Page, RefersToNothingOutside) {
  const std::string page = htmlPage(llama());
  EXPECT_FALSE(
      std::regex_search(page.substr(0, 20000),
                        std::regex("(src|href)\\s*=\\s*[\"']?(https?:)?//")));
  EXPECT_THAT(page, Not(HasSubstr("https://")));
  EXPECT_THAT(page, Not(HasSubstr("@import")));
  const size_t begin = page.find("id=\"data\">") + 10;
  const json data =
      json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  EXPECT_EQ(data["sections"].size(), 1u);
  EXPECT_EQ(data["sections"][0]["ops"].size(), llama().sections[0].ops.size());
}

TEST(Page, NamesCannotEndTheScript) {
  Program program;
  program.file = "x";
  program.streams = {"s"};
  program.sections.push_back({"</script><img onerror=alert(1)>"});
  EXPECT_THAT(htmlPage(program), Not(HasSubstr("<img onerror")));
}

TEST(Diff, OfAFileWithItselfIsEmpty) {
  EXPECT_THAT(diffText(llama(), llama()), HasSubstr("no difference"));
}

TEST(Diff, ShowsWhatWasAdded) {
  const Program before = described(testing::TrainPlan(2, 8)),
                after = described(testing::TrainPlan(3, 8));
  const std::string text = diffText(before, after);
  EXPECT_THAT(text, HasSubstr("Ops by name"));
  EXPECT_THAT(text, HasSubstr("+ parameter"));
  EXPECT_THAT(text, HasSubstr("micro_next"));
}

TEST(Refusal, NamesTheVersionOfAProgram) {
  std::string text = contentOf(kLlama);
  const size_t at = text.find("format_version = 1");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 18, "format_version = 7");
  const absl::StatusOr<Program> program = readMlir("old.mlir", text);
  ASSERT_FALSE(program.ok());
  EXPECT_THAT(std::string(program.status().message()),
              HasSubstr("format version 7; this build reads version 1"));
}

TEST(Refusal, NamesTheVersionOfAPlan) {
  plan::Plan plan = testing::LinearPlan(4, 3, 5);
  plan.version = 9;
  const std::vector<uint8_t> bytes = plan::Serialize(plan);
  const absl::StatusOr<Program> program = readPlanBytes(
      "x.plan", std::string(bytes.begin(), bytes.end()), "step.plan");
  ASSERT_FALSE(program.ok());
  EXPECT_THAT(std::string(program.status().message()), HasSubstr("9"));
}

TEST(Refusal, DamagedFilesNeverCrash) {
  const std::string good = contentOf(kLlama).substr(0, 30000);
  uint32_t random = 12345;
  auto next = [&] { return random = random * 1664525 + 1013904223; };
  for (int i = 0; i < 40; ++i) {
    std::string bad = good.substr(0, 3000 + next() % 27000);
    for (int k = 0; k < 8; ++k)
      bad[(next() >> 4) % bad.size()] = static_cast<char>(next() >> 8);
    EXPECT_FALSE(readMlir("bad.mlir", bad).ok());
  }
  const std::vector<uint8_t> plan = plan::Serialize(testing::TrainPlan(2, 8));
  for (int i = 0; i < 300; ++i) {
    std::string bad(plan.begin(), plan.end());
    for (int k = 0; k < 4; ++k)
      bad[(next() >> 4) % bad.size()] = static_cast<char>(next() >> 8);
    const absl::StatusOr<Program> program =
        readPlanBytes("bad.plan", bad, "step.plan");
    if (program.ok()) summaryText(*program);
  }
}

}  // namespace
}  // namespace heddle::inspect
