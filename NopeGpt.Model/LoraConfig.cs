using System.ComponentModel;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace NopeGpt.Model;

/// <summary>The projections of a block that an adapter can add to. In JSON a list of their names.</summary>
[Flags]
[JsonConverter(typeof(ProjectionsConverter))]
public enum Projections
{
    None = 0,
    QProj = 1,
    KProj = 2,
    VProj = 4,
    OutProj = 8,
    Linear1 = 16,
    Linear2 = 32,

    /// <summary>Only there with mlp = swiglu.</summary>
    Linear3 = 64,

    /// <summary>All that the model has.</summary>
    All = QProj | KProj | VProj | OutProj | Linear1 | Linear2 | Linear3,
}

/// <summary>What an <see cref="Adapter"/> adds to a model: low-rank products (LoRA, Hu et al. 2021), W' = W + alpha·B·A, to the chosen projections of
/// every block, and an embedding of its own where that is trained or grown. As in NoPE GPT the factor is alpha itself, not alpha / rank.</summary>
public sealed record LoraConfig
{
    /// <summary>Rows of A and columns of B, called r.</summary>
    [JsonPropertyName("rank"), Description("Rank of the low-rank products.")]
    public int Rank { get; init; } = 8;

    /// <summary>Factor of the products, not divided by the rank.</summary>
    [JsonPropertyName("alpha"), Description("Factor of the low-rank products; not divided by the rank.")]
    public double Alpha { get; init; } = 2;

    /// <summary>Probability, from 0 to below 1, that an element of what goes into A is left out in training.</summary>
    [JsonPropertyName("dropout"), Description("Probability that an element of an adapter's input is left out in training.")]
    public double Dropout { get; init; }

    [JsonPropertyName("projections"), Description("Projections of each block that get a low-rank product; by default all that the model has.")]
    public Projections Projections { get; init; } = Projections.All;

    /// <summary>The embedding, and a head that is not tied to it, stay as they are; also the rows of a grown vocabulary. Otherwise they train.</summary>
    [JsonPropertyName("freeze_token_embeddings"), Description("The embedding (and a head of its own) does not train.")]
    public bool FreezeTokenEmbeddings { get; init; }

    private const int MaxRank = 1 << 16;

    /// <summary>Everything that is wrong with the settings. Empty: an adapter can be made.</summary>
    /// <param name="model">The model that it is for; null checks what holds for every model.</param>
    public IEnumerable<Problem> Problems(ModelConfig? model = null)
    {
        if (Rank is < 1 or > MaxRank)
            yield return new("rank", Rank.ToString(CultureInfo.InvariantCulture), $"is out of range: choose a whole number from 1 to {MaxRank}");
        if (!(Alpha > 0 && double.IsFinite(Alpha)))
            yield return new("alpha", Alpha.ToString(CultureInfo.InvariantCulture), "is not a number above 0: choose one such as 2");
        if (!(Dropout >= 0 && Dropout < 1))
            yield return new("dropout", Dropout.ToString(CultureInfo.InvariantCulture), "is not a probability below 1: choose a value from 0 to 0.99");
        if (Projections == Projections.None || (Projections & ~Projections.All) != 0)
            yield return new("projections", ProjectionsConverter.Text(Projections), $"names none of the projections: choose from {ProjectionsConverter.Text(Projections.All)}");
        else if (model is not null && model.Mlp != Mlp.Swiglu && Projections != Projections.All && Projections.HasFlag(Projections.Linear3))
            yield return new("projections", ProjectionsConverter.Text(Projections), "has linear3, which only a model with mlp = swiglu has: leave it out");
    }

    /// <summary>Parameters that train: of the products, and of the embedding (with its padding) and an untied head. Nothing is allocated.</summary>
    /// <param name="vocabularySize">The vocabulary with the adapter; null is the model's.</param>
    public (long Products, long Embedding) CountTrained(ModelConfig model, int? vocabularySize = null)
    {
        ModelConfig adapted = model with { VocabularySize = vocabularySize ?? model.VocabularySize };
        ParameterParts parts = adapted.Parameters;
        return (Targets(model).Sum(t => Rank * (t.Inputs + t.Outputs)), FreezeTokenEmbeddings ? 0 : parts.Embedding + parts.Head);
    }

    /// <summary>The projections of a model that get a product, from the first block to the last.</summary>
    internal IEnumerable<LoraTarget> Targets(ModelConfig model)
    {
        int d = model.EmbeddingDimensions, kv = model.KvDimensions, hidden = model.HiddenDimensions;
        (Projections Projection, string Name, long Outputs, long Inputs)[] each =
        [
            (Projections.QProj, "stage1.q_proj", d, d),
            (Projections.KProj, "stage1.k_proj", kv, d),
            (Projections.VProj, "stage1.v_proj", kv, d),
            (Projections.OutProj, "stage1.out_proj", d, d),
            (Projections.Linear1, "stage2.linear1", hidden, d),
            (Projections.Linear2, "stage2.linear2", d, hidden),
            (Projections.Linear3, "stage2.linear3", hidden, d),
        ];
        return Enumerable.Range(0, model.NumDecoderLayers).SelectMany(layer => each
            .Where(e => Projections.HasFlag(e.Projection) && (e.Projection != Projections.Linear3 || model.Mlp == Mlp.Swiglu))
            .Select(e => new LoraTarget(layer, e.Projection, $"decoder.layers.{layer}.{e.Name}", e.Outputs, e.Inputs)));
    }

    /// <summary>This with `projections` naming what it means for the model.</summary>
    internal LoraConfig For(ModelConfig model) =>
        model.Mlp == Mlp.Swiglu ? this : this with { Projections = Projections & ~Projections.Linear3 };
}

/// <summary>A projection that gets a product: y += alpha·B·A·x, A [rank, Inputs], B [Outputs, rank].</summary>
/// <param name="Name">Of the projection in a checkpoint, without `.weight`.</param>
internal readonly record struct LoraTarget(int Layer, Projections Projection, string Name, long Outputs, long Inputs);

/// <summary>["q_proj", "v_proj"] in JSON, as other programs write the list too.</summary>
internal sealed class ProjectionsConverter : JsonConverter<Projections>
{
    private static readonly (Projections Projection, string Name)[] Names = [.. Enum.GetValues<Projections>()
        .Where(p => p is not Projections.None and not Projections.All).Select(p => (p, JsonNamingPolicy.SnakeCaseLower.ConvertName(p.ToString())))];

    public static string Text(Projections projections) => string.Join(", ", Parts(projections));

    public override Projections Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType != JsonTokenType.StartArray) throw new JsonException($"projections must be a list of {Text(Projections.All)}");
        Projections found = Projections.None;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            string? name = reader.TokenType == JsonTokenType.String ? reader.GetString() : null;
            int index = Array.FindIndex(Names, n => n.Name == name);
            if (index < 0) throw new JsonException($"projections must be a list of {Text(Projections.All)}, and has something else");
            found |= Names[index].Projection;
        }
        return found;
    }

    public override void Write(Utf8JsonWriter writer, Projections value, JsonSerializerOptions options)
    {
        writer.WriteStartArray();
        foreach (string name in Parts(value)) writer.WriteStringValue(name);
        writer.WriteEndArray();
    }

    private static IEnumerable<string> Parts(Projections projections) => Names.Where(n => projections.HasFlag(n.Projection)).Select(n => n.Name);
}
