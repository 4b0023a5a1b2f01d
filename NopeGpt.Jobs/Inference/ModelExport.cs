using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Inference;

/// <summary>A model on its way into a folder of its own: whole, with an adapter's changes in its weights, and the tokenizer that belongs to it.</summary>
internal sealed class ModelExport : IDisposable
{
    private readonly string? _tokenizer;
    private readonly IReadOnlyList<string> _places;

    private ModelExport(Decoder model, string? tokenizer, IReadOnlyList<string> places) => (Model, _tokenizer, _places) = (model, tokenizer, places);

    public Decoder Model { get; }

    /// <param name="folder">A checkpoint, also one of a LoRA run, which is an adapter; or a model in any layout.</param>
    /// <param name="adapter">Another adapter, made on that model; null for none.</param>
    /// <param name="places">Where the file of a tokenizer may lie that only names a published encoding.</param>
    /// <exception cref="InvalidDataException">Something is missing, damaged or does not fit.</exception>
    public static ModelExport Open(string folder, string? adapter, double strength, IReadOnlyList<string> places)
    {
        (Decoder model, Adapter? attached) = CheckpointModel.Load(folder, CPU, adapter, strength);
        using (attached)
        {
            try
            {
                if (attached is not null) model.Merge();
                int size = model.Config.VocabularySize;
                // A grown vocabulary has its tokenizer with the adapter.
                string? own = ModelTokenizer.Beside(adapter ?? folder, size) ?? ModelTokenizer.Beside(CheckpointModel.Weights(folder), size);
                return new ModelExport(model, own, places);
            }
            catch
            {
                model.Dispose();
                throw;
            }
        }
    }

    /// <summary>Writes it as another program reads it; the folder appears whole or not at all.</summary>
    /// <param name="layout">One of <see cref="HubLayout.Names"/>.</param>
    /// <param name="tell">Gets sentences about a tokenizer that is not there.</param>
    /// <param name="addFiles">Writes more files into the folder before it appears.</param>
    /// <exception cref="UserException">The layout cannot express the model.</exception>
    public void Write(string layout, string folder, ScalarType type, long? maxShardBytes, Action<string> tell, Action<string>? addFiles = null)
    {
        Tokenizer? known = ModelTokenizer.TryLoad(_tokenizer, _places);
        ExportOptions options = new()
        {
            BeginningId = known?.DocumentStartId,
            EndOfTextId = known?.EndOfTextId,
            Type = type,
            MaxShardBytes = maxShardBytes,
            AddFiles = aside =>
            {
                PutTokenizer(aside, tell);
                addFiles?.Invoke(aside);
            },
        };
        try { HubLayout.Export(Model, layout, folder, options); }
        catch (ArgumentException e) { throw new UserException(e.Message.Split(" (Parameter")[0]); }
    }

    /// <summary>Writes it as a model of ours, whatever its options are.</summary>
    public void Save(string folder, Action<string> tell) => Checkpoint.SaveModel(folder, Model, aside => PutTokenizer(aside, tell));

    public void Dispose() => Model.Dispose();

    private void PutTokenizer(string aside, Action<string> tell) => ModelTokenizer.Put(_tokenizer, aside, Model.Config.VocabularySize, _places, tell);
}
