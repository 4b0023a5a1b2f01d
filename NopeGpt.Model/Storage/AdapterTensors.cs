using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>What is to be read from a file of tensors into an adapter. Every name, shape and type is checked before anything is allocated; what is wrong is
/// reported at once.</summary>
internal sealed class AdapterTensors(string path, SafetensorsFile tensors)
{
    private const int MostNamed = 20;

    private readonly List<string> _problems = [];
    private readonly HashSet<string> _known = [];
    private readonly Dictionary<string, (string Name, Func<Tensor, Tensor>? Change)> _sources = [];

    public string Path => path;

    /// <summary>Both factors of one projection.</summary>
    /// <param name="fileRows">Rows of B in the file where it is not the projection's alone.</param>
    /// <param name="change">Makes the projection's B of the file's.</param>
    public void Add(LoraTarget target, int rank, string nameA, string nameB, long? fileRows = null, Func<Tensor, Tensor>? change = null)
    {
        Check(nameA, rank, target.Inputs);
        Check(nameB, fileRows ?? target.Outputs, rank);
        _sources[target.Name + Adapter.FactorA] = (nameA, null);
        _sources[target.Name + Adapter.FactorB] = (nameB, change);
    }

    /// <summary>The adapter's own embedding, and head where it is not tied.</summary>
    public void AddTables(ModelConfig adapted, string embedding = Adapter.EmbeddingName, string head = Adapter.HeadName)
    {
        AddTable(adapted, Adapter.EmbeddingName, embedding);
        if (!adapted.TiedHead) AddTable(adapted, Adapter.HeadName, head);
    }

    /// <summary>A tensor that must be bit for bit one of the base, or its tied head.</summary>
    public void MustEqual(string name, Tensor expected, string what)
    {
        if (!Check(name, expected.shape)) return;
        using DisposeScope scope = NewDisposeScope();
        if (!tensors.Load(name).to(expected.dtype).equal(expected.detach().cpu()).all().item<bool>()) _problems.Add($"{name} differs from {what}");
    }

    public void Refuse(string problem) => _problems.Add(problem);

    /// <summary>Makes the adapter.</summary>
    /// <exception cref="InvalidDataException">Something is missing, unknown or does not fit.</exception>
    public Adapter Read(Decoder model, LoraConfig config, int vocabulary, string baseHash)
    {
        _problems.AddRange(tensors.Names.Where(n => !_known.Contains(n)).Select(n => $"{n} is unknown"));
        if (_problems.Count > 0)
        {
            string more = _problems.Count > MostNamed ? $"; and {_problems.Count - MostNamed} more" : "";
            throw new InvalidDataException($"{path} does not fit the base: {string.Join("; ", _problems.Take(MostNamed))}{more}; use the base that the adapter was trained on.");
        }
        Adapter adapter = Adapter.Empty(model, config, baseHash, vocabulary, _sources.ContainsKey(Adapter.EmbeddingName));
        try
        {
            using IDisposable quiet = no_grad();
            foreach ((string name, Tensor tensor) in adapter.Tensors())
            {
                (string source, Func<Tensor, Tensor>? change) = _sources[name];
                if (change is null)
                {
                    tensors.CopyInto(source, tensor);
                    continue;
                }
                using DisposeScope scope = NewDisposeScope();
                tensor.copy_(change(tensors.Load(source)));
            }
            return adapter;
        }
        catch
        {
            adapter.Dispose();
            throw;
        }
    }

    // Other programs write no padding.
    private void AddTable(ModelConfig adapted, string target, string name)
    {
        int d = adapted.EmbeddingDimensions, rows = adapted.PaddedVocabularySize;
        bool bare = tensors.Contains(name) && tensors.Info(name).Shape is [long found, ..] && found == adapted.VocabularySize && found < rows;
        Check(name, bare ? adapted.VocabularySize : rows, d);
        _sources[target] = (name, bare ? table => cat([table, zeros(rows - adapted.VocabularySize, d, table.dtype)]) : null);
    }

    private bool Check(string name, params long[] shape)
    {
        _known.Add(name);
        string? problem = !tensors.Contains(name) ? $"{name} is missing"
            : tensors.Info(name) is var entry && !entry.Shape.SequenceEqual(shape) ? $"{name} has the shape [{string.Join(", ", entry.Shape)}] in place of [{string.Join(", ", shape)}]"
            : entry.Type is not (ScalarType.Float32 or ScalarType.Float64 or ScalarType.Float16 or ScalarType.BFloat16) ? $"{name} is {entry.Type} and not floating point"
            : null;
        if (problem is not null) _problems.Add(problem);
        return problem is null;
    }
}
