using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>An adapter as Hugging Face's PEFT keeps it: adapter_config.json and adapter_model.safetensors, on a model in the naming of Llama, GPT-2 or nope-gpt.
/// Its factor is lora_alpha / r (or / sqrt(r)), which becomes alpha. GPT-2's fused c_attn has one A and a B of three parts, which become three products. The
/// rows of Llama's query and key products are brought from split halves to adjacent pairs, like those of its weights.</summary>
internal static partial class PeftAdapter
{
    public const string JsonName = "adapter_config.json", TensorsName = "adapter_model.safetensors";

    private const string Prefix = "base_model.model.", FactorA = ".lora_A.weight", FactorB = ".lora_B.weight";

    private static readonly Dictionary<string, Projections> Names = new(StringComparer.Ordinal)
    {
        ["self_attn.q_proj"] = Projections.QProj, ["self_attn.k_proj"] = Projections.KProj, ["self_attn.v_proj"] = Projections.VProj, ["self_attn.o_proj"] = Projections.OutProj,
        ["mlp.gate_proj"] = Projections.Linear1, ["mlp.up_proj"] = Projections.Linear3, ["mlp.down_proj"] = Projections.Linear2,
        ["attn.c_attn"] = Projections.QProj | Projections.KProj | Projections.VProj, ["attn.c_proj"] = Projections.OutProj,
        ["mlp.c_fc"] = Projections.Linear1, ["mlp.c_proj"] = Projections.Linear2,
        ["stage1.q_proj"] = Projections.QProj, ["stage1.k_proj"] = Projections.KProj, ["stage1.v_proj"] = Projections.VProj, ["stage1.out_proj"] = Projections.OutProj,
        ["stage2.linear1"] = Projections.Linear1, ["stage2.linear2"] = Projections.Linear2, ["stage2.linear3"] = Projections.Linear3,
    };

    private static readonly string[] EmbeddingNames = ["model.embed_tokens.weight", "transformer.wte.weight", Adapter.EmbeddingName], HeadNames = ["lm_head.weight", Adapter.HeadName];

    public static Adapter Load(string folder, Decoder model)
    {
        AdapterJson json = AdapterJson.Read(Path.Combine(folder, JsonName));
        LoraConfig config = Config(json);
        string path = Path.Combine(folder, TensorsName);
        using SafetensorsFile tensors = AdapterFolder.Open(path);
        AdapterTensors source = new(path, tensors);
        Dictionary<(int Layer, Projections Projection), (string Name, string Module)> modules = [];
        foreach (string name in tensors.Names.Where(n => n.EndsWith(FactorA, StringComparison.Ordinal) || n.EndsWith(FactorB, StringComparison.Ordinal)))
        {
            Match match = Module().Match(name);
            if (!match.Success || !Names.TryGetValue(match.Groups["module"].Value, out Projections projections) || !int.TryParse(match.Groups["layer"].Value, out int layer)) continue;
            foreach (Projections projection in Enum.GetValues<Projections>().Where(p => p is not Projections.None and not Projections.All && projections.HasFlag(p)))
            {
                (string, string) module = (name[..^FactorA.Length], match.Groups["module"].Value);
                if (modules.TryGetValue((layer, projection), out (string, string) other) && other != module) source.Refuse($"{name} and {other.Item1} are for one projection");
                modules[(layer, projection)] = module;
            }
        }
        config = config with { Projections = modules.Keys.Aggregate(Projections.None, (all, k) => all | k.Projection) };
        if (modules.Count == 0) source.Refuse($"it has no product in the naming of Llama, GPT-2 or nope-gpt ({Prefix}….layers.0.self_attn.q_proj{FactorA})");
        else json.Check(config.Problems(model.Config));
        AddProducts(source, modules, config, model.Config);
        int vocabulary = AddTables(source, tensors, model.Config);
        return source.Read(model, config, vocabulary, model.WeightsHash());
    }

    private static LoraConfig Config(AdapterJson json)
    {
        if (json.String("peft_type") != "LORA") throw json.Wrong("peft_type", "only LORA can be loaded");
        foreach (string key in (string[])["use_dora", "lora_bias"])
            if (json.Flag(key)) throw json.Wrong(key, "changes the product in a way that this program does not know: only false can be loaded");
        foreach (string key in (string[])["rank_pattern", "alpha_pattern"])
            if (json.Values[key] is JsonObject { Count: > 0 }) throw json.Wrong(key, "gives projections a rank or factor of their own: only one for all can be loaded");
        if (json.Has("bias") && json.String("bias") != "none") throw json.Wrong("bias", "trains biases, which an adapter does not have: only none can be loaded");
        int rank = json.Integer("r");
        double alpha = json.Number("lora_alpha"), divisor = json.Flag("use_rslora") ? Math.Sqrt(rank) : rank;
        json.Check(new LoraConfig { Rank = rank }.Problems().Select(p => p with { Field = "r" }));
        LoraConfig config = new() { Rank = rank, Alpha = alpha / divisor, Dropout = json.Has("lora_dropout") ? json.Number("lora_dropout") : 0 };
        json.Check(config.Problems().Select(p => p with { Field = "lora_" + p.Field }));
        return config;
    }

    private static void AddProducts(AdapterTensors source, Dictionary<(int Layer, Projections Projection), (string Name, string Module)> modules, LoraConfig config, ModelConfig model)
    {
        HashSet<(int, Projections)> left = [.. modules.Keys];
        long queries = model.EmbeddingDimensions, keys = model.KvDimensions;
        foreach (LoraTarget target in config.Targets(model))
        {
            left.Remove((target.Layer, target.Projection));
            if (!modules.TryGetValue((target.Layer, target.Projection), out (string Name, string Module) module))
            {
                source.Refuse($"block {target.Layer} has no product for {Path.GetExtension(target.Name).TrimStart('.')}, which other blocks have");
                continue;
            }
            if (module.Module == "attn.c_attn")
            {
                long from = target.Projection == Projections.QProj ? 0 : target.Projection == Projections.KProj ? queries : queries + keys;
                source.Add(target, config.Rank, module.Name + FactorA, module.Name + FactorB, queries + (2 * keys), b => b.narrow(0, from, target.Outputs));
            }
            else
            {
                bool halves = model.Positions == Positions.Rope && module.Module is "self_attn.q_proj" or "self_attn.k_proj";
                source.Add(target, config.Rank, module.Name + FactorA, module.Name + FactorB, null, halves ? b => AdjacentPairs(b, model.HeadDimensions) : null);
            }
        }
        foreach ((int layer, Projections projection) in left) source.Refuse($"{modules[(layer, projection)].Name} is in block {layer} of a base with {model.NumDecoderLayers}");
    }

    /// <summary>Adds the embedding and head that the file has, if any.</summary>
    /// <returns>The vocabulary with the adapter.</returns>
    private static int AddTables(AdapterTensors source, SafetensorsFile tensors, ModelConfig model)
    {
        string? embedding = Find(EmbeddingNames), head = Find(HeadNames);
        if (embedding is null)
        {
            if (head is not null) source.Refuse($"{head} comes without an embedding, and an adapter has both or neither");
            return model.VocabularySize;
        }
        long rows = tensors.Info(embedding).Shape is [long first, _] ? first : model.VocabularySize;
        bool grown = rows > model.PaddedVocabularySize && rows <= int.MaxValue;
        int vocabulary = grown ? (int)rows : model.VocabularySize;
        foreach (Problem problem in Adapter.VocabularyProblems(model, vocabulary)) source.Refuse(problem.ToString());
        source.AddTables(model with { VocabularySize = vocabulary }, embedding, head ?? HeadNames[0]);
        if (model.TiedHead && head is not null)
        {
            using Tensor table = tensors.Load(embedding);
            source.MustEqual(head, table, $"{embedding}, to which it is tied");
        }
        return vocabulary;

        string? Find(string[] names) => names.Select(n => Prefix + n).FirstOrDefault(tensors.Contains);
    }

    // Channel i and i + D/2 of a head become 2i and 2i + 1.
    private static Tensor AdjacentPairs(Tensor b_or, long headDimensions) =>
        b_or.view(-1, 2, headDimensions / 2, b_or.shape[1]).transpose(1, 2).reshape(b_or.shape);

    [GeneratedRegex(@"^base_model\.model\.(?:model\.layers|transformer\.h|decoder\.layers)\.(?<layer>[0-9]+)\.(?<module>[a-z0-9_]+\.[a-z0-9_]+)\.lora_[AB]\.weight$")]
    private static partial Regex Module();
}
