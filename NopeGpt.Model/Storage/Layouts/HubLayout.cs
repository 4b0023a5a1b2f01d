using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The models of other programs on disk: recognises, reads and writes them. <see cref="Checkpoint.LoadModel"/> loads what is recognised.</summary>
public static class HubLayout
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    /// <summary>The layouts by name. All are read and written.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. Layout.All.Select(l => l.Name)];

    /// <summary>Finds out what a folder or file holds, and checks config, names and shapes, without reading weights.</summary>
    /// <param name="path">A folder with a config.json and safetensors, a .safetensors file, its index, or a llama2.c .bin file.</param>
    /// <exception cref="InvalidDataException">Nothing is there, or it is of no known layout, or damaged, or does not fit; the message names file, field or tensor, reason and cure.</exception>
    public static RecognisedModel Recognise(string path)
    {
        using FileModel model = FileModel.Open(path);
        IReadOnlyList<string> files = model.Source is ShardedSafetensors sharded ? sharded.Shards : [model.Source.Path];
        return new(path, model.Layout.Name, model.Config, model.ConfigPath, files, model.Source.Names.Sum(n => model.Source.Info(n).Length));
    }

    /// <summary>The options of a model that a layout cannot express; empty where <see cref="Export"/> can write it.</summary>
    /// <param name="layout">One of <see cref="Names"/>.</param>
    /// <exception cref="ArgumentException">There is no such layout.</exception>
    public static IReadOnlyList<Problem> Obstacles(string layout, ModelConfig config) => [.. Find(layout).Obstacles(config with { VocabularyMultipleOf = 0 })];

    /// <summary>Writes a model so that other programs load it. The folder appears under its name complete and flushed, or not at all.</summary>
    /// <param name="layout">One of <see cref="Names"/>.</param>
    /// <param name="folder">A new or empty folder.</param>
    /// <remarks>Padding of the vocabulary is left out, as nothing in other programs would keep it from being drawn. Dropout rates that the layout has no word for are left out too: they act in training only.</remarks>
    /// <exception cref="ArgumentException">The layout cannot express the model (each option in the way is named), or an option is wrong.</exception>
    /// <exception cref="IOException">The folder holds files, or cannot be written. Nothing is left behind.</exception>
    public static void Export(Decoder model, string layout, string folder, ExportOptions? options = null)
    {
        options ??= new();
        Layout target = Find(layout);
        if (options.Type is not (ScalarType.Float32 or ScalarType.BFloat16 or ScalarType.Float16))
            throw new ArgumentException($"Weights cannot be written as {options.Type}: choose float32, bfloat16 or float16.", nameof(options));
        if (options.MaxShardBytes <= 0) throw new ArgumentException($"Shards cannot have {options.MaxShardBytes} bytes: choose a positive number.", nameof(options));
        foreach (int id in ((int?[])[options.BeginningId, options.EndOfTextId]).OfType<int>())
            if (id < 0 || id >= model.Config.VocabularySize)
                throw new ArgumentException($"The token {id} that begins or ends a text is not in the vocabulary: choose one from 0 to {model.Config.VocabularySize - 1}.", nameof(options));
        ModelConfig config = model.Config with { VocabularyMultipleOf = 0 };
        IReadOnlyList<Problem> obstacles = Obstacles(layout, config);
        if (obstacles.Count > 0) throw new ArgumentException($"The layout {layout} cannot express this model: {string.Join("; ", obstacles)}. Choose another layout.", nameof(layout));
        if (File.Exists(folder) || (Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any()))
            throw new IOException($"{folder}: it is there and not empty; choose a new folder, or delete it.");
        TorchRuntime.Load();
        CheckpointFolder.Write(folder, aside =>
        {
            if (target.WriteConfig(config, options) is { } json) File.WriteAllText(Path.Combine(aside, CheckpointFiles.ConfigName), json.ToJsonString(Indented) + "\n");
            using DisposeScope scope = NewDisposeScope();
            target.WriteWeights(aside, config, [.. Tensors(target, config, model.Parameters()).Select(t => (target.FullName(t.Name), t.Tensor.to(options.Type)))], options);
            options.AddFiles?.Invoke(aside);
        });
    }

    private static Layout Find(string name) =>
        Layout.All.FirstOrDefault(l => l.Name == name) ?? throw new ArgumentException($"There is no layout {name}: choose one of {string.Join(", ", Names)}.", nameof(name));

    /// <summary>What a layout's file holds for a model: a pure mapping of its parameters, or of anything of their names and shapes.</summary>
    /// <param name="config">The model's config, without padding.</param>
    internal static IEnumerable<(string Name, Tensor Tensor)> Tensors(Layout layout, ModelConfig config, IReadOnlyList<(string Name, Tensor Parameter)> parameters, bool? transposed = null)
    {
        Dictionary<string, Tensor> known = parameters.ToDictionary(p => p.Name, p => p.Parameter);
        foreach (string name in (string[])[CanonicalNames.Embedding, CanonicalNames.Head])
            if (known.TryGetValue(name, out Tensor? rows)) known[name] = rows.detach().narrow(0, 0, config.VocabularySize);
        foreach (LayoutTensor tensor in layout.Tensors(config, transposed ?? layout.WritesTransposed)) yield return (tensor.Name, tensor.Join(known));
    }
}
