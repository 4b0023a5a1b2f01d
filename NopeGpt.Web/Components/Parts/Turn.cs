using System.Text;
using NopeGpt.Web.Chat;

namespace NopeGpt.Web.Components.Parts;

/// <summary>One contribution to a <see cref="Conversation"/>.</summary>
internal sealed class Turn(bool isModel, string text)
{
    private readonly StringBuilder _text = new(text);
    private string? _whole = text;

    public bool IsModel { get; } = isModel;

    public bool IsGrowing { get; set; } = isModel;

    public bool IsStopped { get; set; }

    /// <summary>A sentence about why there is no reply, or no more of it.</summary>
    public string? Error { get; set; }

    public string Text => _whole ??= _text.ToString();

    public int Tokens { get; private set; }

    public double TokensPerSecond { get; private set; }

    public ulong Seed { get; private set; }

    /// <summary>True where it ended because it was as long as allowed.</summary>
    public bool IsCut { get; private set; }

    public void Take(ChatPiece piece)
    {
        _text.Append(piece.Text);
        _whole = null;
        Tokens = piece.Tokens;
        TokensPerSecond = piece.TokensPerSecond;
        if (piece.Seed != 0) Seed = piece.Seed;
        if (piece.FinishReason == "length") IsCut = true;
    }
}
