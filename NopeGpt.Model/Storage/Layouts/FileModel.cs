using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>A model on disk, opened: its layout is known and every tensor fits its config, so that a <see cref="Decoder"/> of that config takes
/// no more memory than the file gives reason for.</summary>
internal sealed class FileModel : IDisposable
{
    private const int MostNamed = 512;

    private readonly FileTensors _tensors;
    private readonly IReadOnlyList<LayoutTensor> _mapping;

    private FileModel(Layout layout, ModelConfig config, string configPath, FileTensors tensors)
    {
        (Layout, Config, _tensors) = (layout, config, tensors);
        ConfigPath = configPath;
        if (config.TiedHead) tensors.TakeHeadForEmbedding();
        string[] problems = [.. Misfits(layout, config, tensors, out _mapping)];
        if (problems.Length == 0) return;
        string more = problems.Length > MostNamed ? $"; and {problems.Length - MostNamed} more" : "";
        string sizes = configPath == tensors.Source.Path ? "the sizes that it tells itself" : $"its {Path.GetFileName(configPath)}";
        throw new InvalidDataException($"{tensors.Source.Path} does not fit {sizes}: {string.Join("; ", problems.Take(MostNamed))}{more}; use the two files of one model.");
    }

    public Layout Layout { get; }

    public ModelConfig Config { get; }

    public string ConfigPath { get; }

    public TensorSource Source => _tensors.Source;

    /// <summary>Opens a folder or file, reads its config and checks every name, shape and type. No weights are read.</summary>
    /// <exception cref="InvalidDataException">Nothing is there, or it is of no known layout, or damaged, or does not fit.</exception>
    public static FileModel Open(string path)
    {
        TensorSource source = ModelFiles.Open(path);
        try
        {
            ConfigReader? config = ModelFiles.Config(source);
            Layout layout = Find(source, config);
            FileTensors tensors = new(source, layout);
            ModelConfig sizes = layout.ReadConfig(config, tensors);
            return new(layout, sizes, config?.Path ?? source.Path, tensors);
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>Copies every weight into a model of this config; types and devices are converted, one tensor at a time.</summary>
    /// <exception cref="InvalidDataException">A head that should equal the embedding does not.</exception>
    public void CopyInto(Decoder model)
    {
        CheckTiedHead();
        Dictionary<string, Tensor> parameters = model.Parameters().ToDictionary(p => p.Name, p => p.Parameter);
        foreach (LayoutTensor tensor in _mapping)
        {
            string raw = _tensors.Raw(tensor.Name);
            if (tensor.IsPlain && Source.Info(raw).Shape is { Count: < 3 } shape)
            {
                CopyRows(raw, shape[0], parameters[tensor.Parameters[0]]);
                continue;
            }
            using Tensor stored = Source.Load(raw);
            tensor.CopyInto(stored, parameters);
        }
    }

    public void Dispose() => Source.Dispose();

    // A vocabulary's padding may be missing in the file; it computes nothing.
    private void CopyRows(string raw, long rows, Tensor parameter)
    {
        if (rows == parameter.shape[0])
        {
            Source.CopyInto(raw, parameter);
            return;
        }
        using IDisposable quiet = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Source.CopyInto(raw, parameter.narrow(0, 0, rows));
        parameter.narrow(0, rows, parameter.shape[0] - rows).zero_();
    }

    private static Layout Find(TensorSource source, ConfigReader? config)
    {
        Layout[] byNames = [.. Layout.All.Where(l => source.Names.Any(n => l.Owns(l.BaseName(n))))];
        if (byNames.Length == 1) return byNames[0];
        Layout[] byKeys = config is null ? [] : [.. (byNames.Length > 0 ? byNames : Layout.All).Where(l => l.Owns(config))];
        if (byKeys.Length == 1) return byKeys[0];
        string found = byNames.Length == 0 ? "of none" : $"of several ({string.Join(", ", byNames.Select(l => l.Name))})";
        string names = string.Join(", ", source.Names.Take(3));
        throw new InvalidDataException($"{source.Path}: its tensors ({names}{(source.Names.Count > 3 ? ", …" : "")}) and its config are {found} of the layouts {string.Join(", ", HubLayout.Names)}; choose a model of one of them.");
    }

    private static List<string> Misfits(Layout layout, ModelConfig config, FileTensors tensors, out IReadOnlyList<LayoutTensor> mapping)
    {
        mapping = [.. layout.Tensors(config, layout.IsTransposed(tensors))];
        Dictionary<string, long[]> shapes = ParameterShapes.Of(config).ToDictionary(p => p.Name, p => p.Shape);
        Dictionary<string, long[]> unpadded = ParameterShapes.Of(config with { VocabularyMultipleOf = 0 }).ToDictionary(p => p.Name, p => p.Shape);
        List<string> problems = [];
        foreach (LayoutTensor tensor in mapping)
        {
            string raw = tensors.Raw(tensor.Name);
            long[] shape = tensor.Shape(shapes);
            if (tensors.Find(tensor.Name) is not { } entry) problems.Add($"{raw} is missing");
            else if (!layout.ShapeOf(entry).SequenceEqual(shape) && !(tensor.IsPlain && layout.ShapeOf(entry).SequenceEqual(tensor.Shape(unpadded)))) problems.Add($"{raw} has the shape [{string.Join(", ", entry.Shape)}] in place of [{string.Join(", ", shape)}]");
            else if (entry.Type is not (ScalarType.Float32 or ScalarType.Float64 or ScalarType.Float16 or ScalarType.BFloat16)) problems.Add($"{raw} is {entry.Dtype}, and only float32, float64, float16 and bfloat16 can be loaded");
        }
        HashSet<string> known = [.. mapping.Select(m => m.Name)];
        foreach (string name in tensors.Names.Where(n => !known.Contains(n) && !layout.Ignores(n) && !(config.TiedHead && n == layout.Head))) problems.Add($"{tensors.Raw(name)} is unknown");
        return problems;
    }

    private void CheckTiedHead()
    {
        if (!Config.TiedHead || _tensors.Find(Layout.Head) is null) return;
        using DisposeScope scope = NewDisposeScope();
        string head = _tensors.Raw(Layout.Head), embedding = _tensors.Raw(Layout.Embedding);
        Tensor first = Source.Load(head), second = Source.Load(embedding);
        if (!first.shape.SequenceEqual(second.shape) || first.dtype != second.dtype || !first.equal(second).all().item<bool>())
            throw new InvalidDataException($"{Source.Path}: {head} differs from {embedding}, to which it is tied; use a file whose head is the embedding, or a config that says they are not tied.");
    }
}
