using System.Text.RegularExpressions;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The tensors of a file under the names that a layout has for them.</summary>
internal sealed partial class FileTensors
{
    private readonly Dictionary<string, string> _rawNames = new(StringComparer.Ordinal);
    private readonly Layout _layout;

    /// <exception cref="InvalidDataException">Two tensors have the same name in the layout.</exception>
    public FileTensors(TensorSource source, Layout layout)
    {
        (Source, _layout) = (source, layout);
        foreach (string raw in source.Names)
        {
            string name = layout.BaseName(raw);
            if (!_rawNames.TryAdd(name, raw)) throw new InvalidDataException($"{source.Path}: tensor {raw} is the same parameter as {_rawNames[name]}; leave out one of them.");
        }
    }

    public TensorSource Source { get; }

    public IEnumerable<string> Names => _rawNames.Keys;

    /// <summary>Blocks that the names speak of: the highest number in them and one.</summary>
    public int Layers => _rawNames.Keys.Select(n => LayerNumber().Match(n)).Where(m => m.Success).Select(m => int.Parse(m.Groups[1].ValueSpan)).DefaultIfEmpty(-1).Max() + 1;

    /// <summary>Takes the tied head for the embedding where only it is there: safetensors.torch keeps of tensors that share memory the one whose name sorts first.</summary>
    public void TakeHeadForEmbedding()
    {
        if (!_rawNames.ContainsKey(_layout.Embedding) && _rawNames.Remove(_layout.Head, out string? raw)) _rawNames.Add(_layout.Embedding, raw);
    }

    /// <summary>The file's own name of a tensor; the layout's where it has none.</summary>
    public string Raw(string name) => _rawNames.GetValueOrDefault(name, name);

    /// <summary>Null where the file has no such tensor.</summary>
    public SafetensorsEntry? Find(string name) => _rawNames.TryGetValue(name, out string? raw) ? Source.Info(raw) : null;

    /// <summary>The shape as the layout counts it; null where the file has no such tensor.</summary>
    public IReadOnlyList<long>? Shape(string name) => Find(name) is { } entry ? _layout.ShapeOf(entry) : null;

    [GeneratedRegex(@"(?:^|\.)([0-9]{1,6})\.")]
    private static partial Regex LayerNumber();
}
