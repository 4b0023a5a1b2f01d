using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace NopeGpt.Model;

// What fine-tuning does with the network; the network itself is in Decoder.cs.
public sealed partial class Decoder
{
    private const ulong DropoutStream = 0x5DEECE66D;

    private IReadOnlyList<AttachedAdapter> _adapters = [];

    /// <summary>The adapters that take part, in the order in which they were attached.</summary>
    public IReadOnlyList<AttachedAdapter> Adapters => _adapters;

    /// <summary>The architecture with the vocabulary of the attached adapters.</summary>
    public ModelConfig AdaptedConfig => Embedding().Size is var size && size == Config.VocabularySize ? Config : Config with { VocabularySize = size };

    /// <summary>Draws the dropout masks anew from a seed: a model that was loaded has always the same.</summary>
    public void SeedDropout(ulong seed)
    {
        using Generator fresh = new(seed ^ DropoutStream, Device);
        using Tensor state = fresh.get_state();
        _dropout.set_state(state);
    }

    /// <summary>Lets an adapter take part with strength·alpha·B·A, or changes its strength. Strength 0 gives what the model gives without it, its vocabulary too.
    /// The model's own parameters are frozen while any adapter is attached, and <see cref="TrainedParameters"/> are the adapters'. Nothing is copied.</summary>
    /// <exception cref="ArgumentException">The strength is not a number from 0, or the adapter does not fit this model or another attached one.</exception>
    public void Attach(Adapter adapter, double strength = 1)
    {
        AttachedAdapter attached = new(adapter, strength);
        int index = _adapters.ToList().FindIndex(a => a.Adapter == adapter);
        AttachOnly(index < 0 ? [.. _adapters, attached] : [.. _adapters.Select((a, i) => i == index ? attached : a)]);
    }

    /// <summary>Lets an adapter take part no longer. After the last one the model is the bare base again and trains as before.</summary>
    /// <returns>False where it was not attached.</returns>
    public bool Detach(Adapter adapter)
    {
        AttachedAdapter[] left = [.. _adapters.Where(a => a.Adapter != adapter)];
        if (left.Length == _adapters.Count) return false;
        AttachOnly(left);
        return true;
    }

    /// <summary>Attaches these adapters and no others. It costs a few references for each projection, so that each request can have its own.</summary>
    /// <exception cref="ArgumentException">As <see cref="Attach"/>; what was attached stays.</exception>
    public void AttachOnly(IReadOnlyList<AttachedAdapter> adapters)
    {
        CheckAdapters(adapters);
        bool freezes = adapters.Count > 0;
        if (freezes != _adapters.Count > 0)
            foreach ((_, Tensor parameter) in Parameters()) parameter.requires_grad = !freezes;
        _adapters = [.. adapters];
        AttachedAdapter[] active = [.. adapters.Where(a => a.Strength > 0)];
        ILookup<(int, Projections), LowRank> products = active
            .SelectMany(a => a.Adapter.Products.Select(p => (Key: (p.Target.Layer, p.Target.Projection), Product: new LowRank(p.A_ri, p.B_or, a.Strength * a.Adapter.Config.Alpha, a.Adapter.Config.Dropout))))
            .ToLookup(p => p.Key, p => p.Product);
        foreach ((int layer, Projections projection, Linear linear) in Linears()) linear.Added = [.. products[(layer, projection)]];
    }

    /// <summary>Adds the products of the attached adapters to the model's own weights, makes their embedding its own, and detaches them. The result is another
    /// base: the adapters no longer fit it. Gradients of its parameters are forgotten.</summary>
    public void Merge()
    {
        RequireParameters();
        using (DisposeScope scope = NewDisposeScope())
        using (no_grad())
        {
            foreach ((_, _, Linear linear) in Linears())
                foreach (LowRank product in linear.Added) linear.weight.addmm_(product.B_or, product.A_ri, alpha: (float)product.Scale);
            Tensor embedding = Embedding().Weight();
            Tensor? head = _classifier.linear is null ? null : Head().Weight();
            ModelConfig config = AdaptedConfig;
            if (embedding.Handle != _embedding.weight.Handle) SetTable(_embedding, embedding, config);
            if (head is not null && head.Handle != _classifier.linear!.weight.Handle) SetTable(_classifier.linear, head, config);
            Config = config;
        }
        AttachOnly([]);
        foreach ((_, Tensor parameter) in Parameters()) parameter.grad = null;
    }

    /// <summary>Grows the vocabulary in place: rows of the embedding (and of an untied head) for new tokens are drawn from N(0, 1/d), as the reference draws
    /// them. The tensors stay the same objects, with new shapes; an optimizer that knew them must be made anew.</summary>
    /// <exception cref="ArgumentException">The size is less than the model's, or too large.</exception>
    /// <exception cref="InvalidOperationException">An adapter is attached.</exception>
    public void ResizeVocabulary(int size, ulong seed)
    {
        string[] problems = size < Config.VocabularySize
            ? [$"vocabulary_size = {size}: is less than the model's {Config.VocabularySize}, and its tokens are not taken away: choose that or more"]
            : [.. (Config with { VocabularySize = size }).Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(size));
        if (_adapters.Count > 0) throw new InvalidOperationException("The vocabulary of a model with attached adapters cannot change: they were made for this one. Detach or merge them first.");
        RequireParameters();
        if (size == Config.VocabularySize) return;
        ModelConfig config = Config with { VocabularySize = size };
        using DisposeScope scope = NewDisposeScope();
        using Generator generator = new(seed, CPU);
        foreach (Table table in ((Table?[])[_embedding, _classifier.linear]).OfType<Table>())
        {
            SetTable(table, TokenTable.Grow(table.weight, Config.VocabularySize, config, generator), config);
            table.weight.grad = null;
        }
        Config = config;
    }

    /// <summary>What trains now, with its name: the model's own parameters, or those of the attached adapters. A second adapter's have its place before the name.</summary>
    public IReadOnlyList<(string Name, Tensor Parameter)> TrainedParameters() => _adapters.Count == 0
        ? [.. Parameters().Where(p => p.Parameter.requires_grad)]
        : [.. _adapters.SelectMany((a, i) => a.Adapter.Parameters().Select(p => (i == 0 ? p.Name : $"adapters.{i}.{p.Name}", p.Parameter)))];

    /// <summary>SHA-256 over the architecture and every weight, in hexadecimal: the identity of a base, by which an adapter knows it in any file layout. It covers
    /// the config in one spelling (<see cref="ModelConfig.Computed"/>), then each tensor in the order of names: name, shape, float32 bytes.</summary>
    public string WeightsHash()
    {
        RequireParameters();
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(Encoding.UTF8.GetBytes(ModelConfigFile.Serialize(Config.Computed)));
        foreach ((string name, Tensor parameter) in Parameters().OrderBy(p => p.Name, StringComparer.Ordinal))
        {
            using DisposeScope scope = NewDisposeScope();
            // Rows that pad the vocabulary compute nothing.
            Tensor rows = IsTable(parameter) ? parameter.narrow(0, 0, Config.VocabularySize) : parameter;
            hash.AppendData(Encoding.UTF8.GetBytes($"{name} [{string.Join(", ", rows.shape)}]\n"));
            AppendBytes(hash, rows.detach().to(ScalarType.Float32).cpu().contiguous());
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    internal Tensor OwnEmbedding_Pd => _embedding.weight;

    internal Tensor OwnHead_Pd => (_classifier.linear ?? _embedding).weight;

    private static unsafe void AppendBytes(IncrementalHash hash, Tensor dense)
    {
        const int most = 1 << 28;
        byte* start = (byte*)Dispatcher.DataPointer(dense);
        long length = dense.numel() * sizeof(float);
        for (long done = 0; done < length; done += most) hash.AppendData(new ReadOnlySpan<byte>(start + done, (int)Math.Min(most, length - done)));
        GC.KeepAlive(dense);
    }

    private bool IsTable(Tensor parameter) => parameter.Handle == _embedding.weight.Handle || parameter.Handle == _classifier.linear?.weight.Handle;

    private TokenTable Embedding() => Adapted(_embedding, adapter => adapter.Embedding_Pd);

    private TokenTable Head() => _classifier.linear is null ? Embedding() : Adapted(_classifier.linear, adapter => adapter.Head_Pd);

    private TokenTable Adapted(Table table, Func<Adapter, Tensor?> own) => new(table.weight, Config.VocabularySize,
        [.. _adapters.Where(a => a.Strength > 0 && own(a.Adapter) is not null).Select(a => (own(a.Adapter)!, a.Adapter.VocabularySize, a.Strength))]);

    private IEnumerable<(int Layer, Projections Projection, Linear Linear)> Linears()
    {
        for (int i = 0; i < _stack.layers.Count; i++)
        {
            (Attention attention, FeedForward mlp) = (_stack.layers[i].stage1, _stack.layers[i].stage2);
            yield return (i, Projections.QProj, attention.q_proj);
            yield return (i, Projections.KProj, attention.k_proj);
            yield return (i, Projections.VProj, attention.v_proj);
            yield return (i, Projections.OutProj, attention.out_proj);
            yield return (i, Projections.Linear1, mlp.linear1);
            yield return (i, Projections.Linear2, mlp.linear2);
            if (mlp.linear3 is not null) yield return (i, Projections.Linear3, mlp.linear3);
        }
    }

    private void CheckAdapters(IReadOnlyList<AttachedAdapter> adapters)
    {
        foreach ((Adapter adapter, double strength) in adapters)
        {
            if (!(strength >= 0 && double.IsFinite(strength)))
                throw new ArgumentException($"strength = {strength.ToString(CultureInfo.InvariantCulture)}: is not a number from 0: choose 1 for the adapter as it was trained", nameof(adapters));
            if (adapter.BaseConfig.Computed != Config.Computed)
                throw new ArgumentException($"the adapter is for another base: for {Compact(adapter.BaseConfig)}, and the model is {Compact(Config)}; attach it to its own", nameof(adapters));
            // The tensors' devices: the model's own may leave the number out.
            string device = adapter.Products[0].A_ri.device.ToString(), own = _embedding.weight.device.ToString();
            if (device != own) throw new ArgumentException($"the adapter is on {device}, and the model on {own}; load it with this model", nameof(adapters));
        }
        if (adapters.DistinctBy(a => a.Adapter).Count() != adapters.Count)
            throw new ArgumentException("an adapter is there twice; give it once, with the strength that both would have together", nameof(adapters));
        int[] sizes = [.. adapters.Select(a => a.Adapter.VocabularySize).Where(s => s > Config.VocabularySize).Distinct()];
        if (sizes.Length > 1)
            throw new ArgumentException($"adapters with vocabularies of {string.Join(" and ", sizes)} tokens cannot be attached together, as the same id beyond the base's {Config.VocabularySize} may be another token in each; detach one", nameof(adapters));
    }

    private static string Compact(ModelConfig config) => ModelConfigFile.Serialize(config).ReplaceLineEndings("").Replace("  ", " ", StringComparison.Ordinal);

    // The parameter stays the object that it was, in the module and in the caller's hands.
    private static void SetTable(Table table, Tensor rows, ModelConfig config)
    {
        using IDisposable quiet = no_grad();
        Tensor padded = zeros(config.PaddedVocabularySize, config.EmbeddingDimensions, device: rows.device);
        padded.narrow(0, 0, config.VocabularySize).copy_(rows.narrow(0, 0, config.VocabularySize));
        table.weight.set_(padded);
    }
}

/// <summary>An adapter that takes part, and how much.</summary>
/// <param name="Strength">Factor of its products, and its embedding's part: 0 nothing, 1 as it was trained.</param>
public sealed record AttachedAdapter(Adapter Adapter, double Strength = 1);

/// <summary>A product that is added to a projection: x·Aᵀ·Bᵀ·scale.</summary>
/// <param name="Dropout">Probability that an element of x is left out in training.</param>
internal readonly record struct LowRank(Tensor A_ri, Tensor B_or, double Scale, double Dropout);
