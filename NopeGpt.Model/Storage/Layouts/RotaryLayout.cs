namespace NopeGpt.Model.Storage.Layouts;

/// <summary>What the layouts of Llama's shape share: rotary positions, RMSNorm, SwiGLU. They differ in names, config and the order of rotary pairs.</summary>
internal abstract class RotaryLayout : Layout
{
    protected const double Theta = 10_000;

    /// <summary>What stands before a block's names, as layers.; the number follows.</summary>
    protected abstract string Blocks { get; }

    /// <summary>The file's names in a block, in the order norm1, q, k, v, out, norm2, linear1, linear2, linear3, without .weight (or .gain) and .bias.</summary>
    protected abstract IReadOnlyList<string> BlockNames { get; }

    protected abstract string FinalNorm { get; }

    /// <summary>What follows a normalisation's name.</summary>
    protected virtual string Gain => ".weight";

    /// <summary>Rotary pairs lie half a head apart.</summary>
    protected virtual bool SplitHalves => false;

    public override bool Owns(string name) => name == Embedding || (name.StartsWith(Blocks, StringComparison.Ordinal) && BlockNames.Any(b => name.Contains($".{b}.", StringComparison.Ordinal)));

    public override IEnumerable<LayoutTensor> Tensors(ModelConfig config, bool transposed)
    {
        string[] ours = ["norm1", "stage1.q_proj", "stage1.k_proj", "stage1.v_proj", "stage1.out_proj", "norm2", "stage2.linear1", "stage2.linear2", "stage2.linear3"];
        yield return new(Embedding, CanonicalNames.Embedding);
        for (int i = 0; i < config.NumDecoderLayers; i++)
        {
            foreach ((string name, string theirs) in ours.Zip(BlockNames))
            {
                string parameter = CanonicalNames.Layer(i) + name, stored = $"{Blocks}{i}.{theirs}";
                bool norm = name.StartsWith("norm", StringComparison.Ordinal);
                int heads = !SplitHalves ? 0 : name switch { "stage1.q_proj" => config.NumQHeads, "stage1.k_proj" => config.NumKvHeads, _ => 0 };
                yield return new(stored + (norm ? Gain : ".weight"), parameter + ".weight", rotaryHeads: heads);
                if (config.LinearBias && !norm) yield return new(stored + ".bias", parameter + ".bias", rotaryHeads: heads);
            }
        }
        yield return new(FinalNorm + Gain, CanonicalNames.FinalNorm + ".weight");
        if (!config.TiedHead) yield return new(Head, CanonicalNames.Head);
    }

    public override IEnumerable<Problem> Obstacles(ModelConfig config) => Unless(
        Name,
        (config.Positions == Positions.Rope, "positions", Snake(config.Positions), "rope"),
        (config.Norm == Norm.RmsNorm, "norm", Snake(config.Norm), "rms_norm"),
        (config.Mlp == Mlp.Swiglu, "mlp", Snake(config.Mlp), "swiglu"));

    /// <summary>Why a length is needed: <see cref="ModelConfig.ContextLength"/> 0 has no word in these files.</summary>
    protected IEnumerable<Problem> NeedsContext(ModelConfig config) =>
        Unless(Name, (config.ContextLength > 0, "context_length", config.ContextLength, "models with a limit of at least 1"));

    protected IEnumerable<Problem> NeedsTheta(ModelConfig config) => Unless(Name, (config.RopeTheta == Theta, "rope_theta", config.RopeTheta, "10000"));

    protected IEnumerable<Problem> NeedsNoBias(ModelConfig config) => Unless(Name, (!config.LinearBias, "linear_bias", config.LinearBias, "projections without a bias"));
}
