using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

// Shapes: r rank, i inputs and o outputs of a projection, d width of the residual stream, P vocabulary with the adapter and its padding.

/// <summary>A LoRA adapter of one base model: a low-rank product for each chosen projection (<see cref="LoraConfig"/>) and, where the embedding trains or
/// the vocabulary grew, an embedding (and untied head) of its own. It does nothing until <see cref="Decoder.Attach"/>; the base is never changed by it.
/// Detach it before disposing of it.</summary>
public sealed class Adapter : IDisposable
{
    internal const string FactorA = ".lora_a", FactorB = ".lora_b", EmbeddingName = "token_embeddings.weight", HeadName = "token_classifier.linear.weight";

    private bool _trains = true;

    private Adapter(LoraConfig config, ModelConfig baseConfig, string baseHash, int vocabularySize)
    {
        (Config, BaseConfig, BaseHash) = (config.For(baseConfig), baseConfig, baseHash);
        AdaptedConfig = baseConfig with { VocabularySize = vocabularySize };
    }

    public LoraConfig Config { get; }

    /// <summary>The architecture of the base.</summary>
    public ModelConfig BaseConfig { get; }

    /// <summary>The base's architecture with the adapter's vocabulary.</summary>
    public ModelConfig AdaptedConfig { get; }

    /// <summary>Which base it is for: <see cref="Decoder.WeightsHash"/> of it.</summary>
    public string BaseHash { get; }

    /// <summary>Tokens with the adapter: the base's, or more.</summary>
    public int VocabularySize => AdaptedConfig.VocabularySize;

    /// <summary>False: none of its tensors gets a gradient, for an adapter that helps while another one trains. A new one trains.</summary>
    public bool Trains
    {
        get => _trains;
        set
        {
            _trains = value;
            foreach (Factors factors in Products) (factors.A_ri.requires_grad, factors.B_or.requires_grad) = (value, value);
            foreach (Tensor table in Tables()) table.requires_grad = value && !Config.FreezeTokenEmbeddings;
        }
    }

    internal IReadOnlyList<Factors> Products { get; private set; } = [];

    /// <summary>Its own embedding [P, d], or null: the base's.</summary>
    internal Tensor? Embedding_Pd { get; private set; }

    /// <summary>Its own head [P, d] where it has an embedding and the base's head is not tied.</summary>
    internal Tensor? Head_Pd { get; private set; }

    /// <summary>A new adapter, which changes nothing yet: A is drawn from N(0, 1/r) and B is 0.</summary>
    /// <param name="model">The base. It is read only; attached adapters are not looked at.</param>
    /// <param name="seed">The same seed gives the same adapter on every device.</param>
    /// <param name="vocabularySize">Null, or more tokens than the base has; the rows of the new ones are drawn from N(0, 1/d).</param>
    /// <exception cref="ArgumentException">The config has problems, or the vocabulary is smaller than the base's.</exception>
    public static Adapter Create(Decoder model, LoraConfig config, ulong seed, int? vocabularySize = null)
    {
        string[] problems = [.. config.Problems(model.Config).Concat(VocabularyProblems(model.Config, vocabularySize)).Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(config));
        int vocabulary = vocabularySize ?? model.Config.VocabularySize;
        Adapter adapter = Empty(model, config, model.WeightsHash(), vocabulary, !config.FreezeTokenEmbeddings || vocabulary > model.Config.VocabularySize);
        using Generator generator = new(seed, CPU);
        using (no_grad())
        using (NewDisposeScope())
        {
            foreach (Factors factors in adapter.Products)
            {
                factors.A_ri.copy_(empty(factors.A_ri.shape).normal_(0, 1 / Math.Sqrt(config.Rank), generator));
                factors.B_or.zero_();
            }
            adapter.Embedding_Pd?.copy_(TokenTable.Grow(model.OwnEmbedding_Pd, model.Config.VocabularySize, adapter.AdaptedConfig, generator));
            adapter.Head_Pd?.copy_(TokenTable.Grow(model.OwnHead_Pd, model.Config.VocabularySize, adapter.AdaptedConfig, generator));
        }
        return adapter;
    }

    /// <summary>Reads an adapter: a folder that <see cref="Save"/> wrote, the reference's (lora.json and lora.safetensors) or one of Hugging Face's
    /// PEFT (adapter_config.json and adapter_model.safetensors), or that .json file itself.</summary>
    /// <param name="model">The base that it is for.</param>
    /// <exception cref="InvalidDataException">A file is missing or damaged, or is for another base; the message has file, tensor, reason and cure.</exception>
    public static Adapter Load(string path, Decoder model) => AdapterFolder.Load(path, model);

    /// <summary>Writes adapter.safetensors and adapter.json. The folder appears whole or not at all; one that holds an adapter is replaced.</summary>
    /// <exception cref="IOException">The disk is full or unwritable, or the folder holds something else. Nothing is changed.</exception>
    /// <exception cref="InvalidOperationException">Its tensors are split between replicas.</exception>
    public void Save(string folder) => Save(folder, Tensors().ToDictionary());

    /// <summary>As the other, with values of another place: <see cref="TrainingState.Parameters"/> of an adapter that trains in a group of replicas.</summary>
    /// <exception cref="ArgumentException">A tensor is missing or has another shape.</exception>
    /// <inheritdoc cref="Save(string)"/>
    public void Save(string folder, IReadOnlyDictionary<string, Tensor> tensors)
    {
        foreach ((string name, Tensor own) in Tensors())
        {
            if (!tensors.TryGetValue(name, out Tensor? tensor) || !tensor.shape.SequenceEqual(own.shape))
                throw new ArgumentException($"The adapter's {name} of [{string.Join(", ", own.shape)}] is {(tensor is null ? "missing" : $"[{string.Join(", ", tensor.shape)}]")} among the tensors to save.", nameof(tensors));
            if (Native.Aten.Storage(tensor).Bytes < tensor.numel() * tensor.element_size())
                throw new InvalidOperationException($"The adapter's {name} is split between replicas: save it from the captured state of their group.");
        }
        AdapterFile.Save(folder, this, tensors);
    }

    /// <summary>What trains, with its name: the factors of the products, and the embedding and untied head unless frozen.</summary>
    public IReadOnlyList<(string Name, Tensor Parameter)> Parameters() => [.. Tensors().Where(t => t.Tensor.requires_grad)];

    public void Dispose()
    {
        foreach ((_, Tensor tensor) in Tensors()) tensor.Dispose();
    }

    /// <summary>An adapter whose tensors hold nothing yet, on the base's device.</summary>
    internal static Adapter Empty(Decoder model, LoraConfig config, string baseHash, int vocabulary, bool ownEmbedding)
    {
        Adapter adapter = new(config, model.Config, baseHash, vocabulary);
        long[] table = [adapter.AdaptedConfig.PaddedVocabularySize, model.Config.EmbeddingDimensions];
        adapter.Products = [.. config.Targets(model.Config).Select(t => new Factors(t, New(config.Rank, t.Inputs), New(t.Outputs, config.Rank)))];
        if (ownEmbedding) adapter.Embedding_Pd = New(table);
        if (ownEmbedding && !model.Config.TiedHead) adapter.Head_Pd = New(table);
        adapter.Trains = true;
        return adapter;

        Tensor New(params long[] shape) => empty(shape, device: model.Device).DetachFromDisposeScope();
    }

    /// <summary>All tensors with their names in a file, those that do not train too.</summary>
    internal IEnumerable<(string Name, Tensor Tensor)> Tensors()
    {
        foreach (Factors factors in Products)
        {
            yield return (factors.Target.Name + FactorA, factors.A_ri);
            yield return (factors.Target.Name + FactorB, factors.B_or);
        }
        if (Embedding_Pd is not null) yield return (EmbeddingName, Embedding_Pd);
        if (Head_Pd is not null) yield return (HeadName, Head_Pd);
    }

    internal static IEnumerable<Problem> VocabularyProblems(ModelConfig baseConfig, int? vocabularySize)
    {
        if (vocabularySize is not { } size) return [];
        return size < baseConfig.VocabularySize
            ? [new("vocabulary_size", $"{size}", $"is less than the base's {baseConfig.VocabularySize}, and an adapter takes no tokens away: choose that or more")]
            : (baseConfig with { VocabularySize = size }).Problems();
    }

    private IEnumerable<Tensor> Tables() => ((Tensor?[])[Embedding_Pd, Head_Pd]).OfType<Tensor>();

    /// <summary>The product alpha·B·A of one projection.</summary>
    internal sealed record Factors(LoraTarget Target, Tensor A_ri, Tensor B_or);
}
