"""Real videos, two frames of 64×48 pixels each, packed; tests/videos_corpus.py unpacks them."""

from typing import Final

MP4: Final = """
c-oa#Z)_Ar6ra0tg@^@I2!B$Op_GJ3@4CBpJ<92tHs#<NT7+^EQNuE~J9oEs|8;lT-jN_pG?B!Q8Y09P|0I5qpfNFiFc>}%gYg3<#>6H_5F!DI82BP;;C!
>U*V`VJ$Yy8fy*KaAyf?p@9fS}rvZ|wdwuw*_@gAB)rc}{%QX)cVNztVgp|)XDBkW=njlfu1N=W?)QIJqn7+3~|@3+TlwRbOMub;j;oBQ%u&rf)E!_7Y`Q
aXj>ShZb>#dIH#xde!MM|Wp;#8Y^1-w=#xRE2>d+o>9~$gm^`$+#p)T)WJelj-f9o}Nxj=^C{SVkK<1)XV)Q%FHxC$99-*TV4jMq(D?z#4at$NvzR=VXNb
^m=Q7pCKfTO9+ibkG9y$(F^NqomuUrilLer*V8^S1DSQ=Ilf{GpM)1L=UZI-8J&ItVxWp<^SxjTK?Aj(#z*NM{rG}w<K=oJpHI)IOPMER)Qy|(Q+oG~0_J
|@b5|1g4H?BKeqwZkBQS4&TqfCxVn3Y|y;EoL29w%jBl%~uxbd@#*0=8T~hN_!{@p<SLqpm?f3FHN1(j`?zwM~aG;8iFQbBS(&3s7_k*D1Qhq#hKjpg2{a
bxoFlCK_>g76qlC6CO#^UFzpGP4!Zl6@aoGYAGe#fzi6q0n>3>1>dsNCj_Ko>Xs}D*i)%R)k!9&1nfuWC3UG+26I<c=F;Wkt}3f;5t{|5D^Cj;SxP1ZJi(
KZg+v-ihdcIrQjybJf$$i0<P_E&SR?=htReU!6R`e#HPH+JIZKbej;8P3_<MTG+5?}y^v#-;KZ_UM`KR#L%xU-fflI0HuUvY&V>eoUWdGMU4mzh|&%|E)V
eOu;KI}erb9DHzX!-C+{__)SBWv*DMgyn4gD2J-JC6MLN>8qK_xza;K70D=E$Le9x6SPK6SqHk;fssgm)?Bq&DoAOKK^s;qszkw5n3EIZF>q#4RfljL60s
UkoNNio9r5}=THRkxB1Lt?&k;41D`h7pH(ROIM6S%aX)5TGv=JPbN5;PpSb)Z_-r@Tm<N3)H9QuwIM=j|oHsR{0D(=dHTO;YtU=G8^|kxTn&CF$@Vy_7JC
e=kvhmTuv7Onmcy4glwvp@@ckTizia@NKGJWUa>2_=Nu}%%37n<Coldgg5bVTx4!2tS{$2={h^BzA97bpoYfPiw)=N8mxeb&@!@J)f&p@@basr`ahm!Lm6
yY0{lzFhnh8MxK8|6l~Qmv3D8uItR*J9oI{O4t=aX%EkN^O#@uM(ij;i+o+kA}r^v6J%<OEIf87G)wRk{T=#bJ%(yG<tPg?d=~nyNsaO4TxY>aGH+S(V}n
CGL3z&ufENusZVy8&^6-FP2zXh)5_N~)E)2Yr+YppI0A4%{JkOrA!h!YzujPoP8I<cpSOB;cUL9}`1GfGEY_GO}&4S-9xi9Sq2St6V@T94y`Age2Gc&Uh>
bMB{)dQ=1&5ol8EnOD_N$l|@`+i03Kt-bSz!T{F2Y40*;Mo)cO0)$i(fXO<)7>qg;l`_izR_C21E)os#6jbg9F041ZNq59@wY~&S138CITFmwuiM!=<RZs
S${KZAA6_(5o0HEy7W|JIX|_Y_;7Uwq20vGpafY}|_rbHAbMUJ%sm0k9oQ0bN|EX{+tn!E9AIy1$=_YO1P>bJX_%!b6bsRnwOuY*(PNcD%^LNQ`egsg8HV
5f%SWt6tEI+(A57M5X`rQkv4m~$In%%{9yMwxQhIKdhNr}F=ASM&3-oRh1)gRoyQgH#a(s^M^M(EE7TVDk6#-Myp&WlZ^if|tkCI3DMIY71aM&WC>kDoxP
8K0(5<1#}30{NdfUj
"""
FRAGMENTED_MP4: Final = """
c-pO1Z)hAv6ra81Vzku+n`o?+Zf%R9&0Tgc$(aVWBu$TANz#TSR!VBm$?j}+$^Ogk<Z>5nNsEQpeyCb1w&(}7UxKAyil`K^NJXg93JNv&2csAiAxcpQh@N
lu?#Skn6bdf8^WK~H-fw2!pIL;^29;(V-LqQ|3L!?}i<?ffh*0>1Y1?UpkYT1Z1t|LQaO@!a5GwnH$%ymc#b=4ITy95qd_wS+Qx}f_e~6CwYnCmpxeWd8)
@6g>E03Crj)CD#rSx3&zWr0zeA1#RhFio)>k0{Cb|(gsiAYaJUss|plI+;GyF1axz&Dw?r2<ovHhu8mR<<a4-3G-aYGA8t$6SLi@UtErGJu}-sHX&MPT;g
Gu5w&<H~}SrCRep6ed=;K7#jh#lT)hi%gv&7!$2>-e|i^0o#mno)mL&Ttj$+7ocd>BfjL!slzIUWkUcpd*MK}xvJlwFc0hi7Orb3L>n&`OB~cvc>*(x)y?
=Cv8VIeFeeSMnj~iUQ1}^Rn)IcOy1D-u*1yTAzR+89K48m-<ibC$Iy?pNPChyk^c|Tf`cMF;kFFO*4su{^|6~&3C_-QGdoSfVWF)9c8aC@z9dH)pq!Y~tl
u=2pqr~){Sg|TLcx)cR${-*>d%{0ld&{Ef@#hsTXD5wuD*K-wxLixrdv>1U+!E`_hUF<kU(Cd<Jc<fNyrlGu8wJF$l=9cyBz}|uG1Waz9?&uo;x_MPg(C_
VMCR?Ye%})B*5>uR3<FTj+uMh*dVOln+pY+x6I`{YVB=-4h8n&z#x1PIw?mTLq^m&3^s`=bCxP<+hGF2^D7roFVeoav}A40A9`SN)P=Ii;6Ks8iVXh~S>s
OuMTxPbF{p`#A1fCs8_rmHR3tc15Ej~8OoU|hy_U7P2NU+5DPVga<bBAm;0f1CLA!?~H{d#^Tp&ChI}|2-3nH}er*wq3%D@fKi{QJ8A%=}qj3H1iz?Izgu
p85EtilQoD+`IsOyMPfpXS!<L!ZH<lN<Kt0wN!tdtqP9ES$Z(??H4U(_9je=w*T&0u2+NYlLnFedkRiyxh$OZNZ32%iY-Bwm37MugAtQ=Syh$XDWO#3E2)
HMC$IF5fj44-<#HavHFz}|HAxerN0#8ydwuXr$#(7zDZ4;-!Rb;hp7`g{sYo=9^DKPS=2@VRu%7kqZDJC|EBClePrW|iXcbG*UVAM(3s_GFcMPfYFT<~B(
hHZ~v4TRL<oM-4VS)34f%k|fgbrVyz58a}~H82>#{E#u`;%rK`O$SquWe5?Jfo=f=7`m9*s4m>o3~HR{!y0vf8zEUx16rO*!L`TMmWf5=F)B3+yzk9I;u2
2-4_B6CSLIE(atL87xvCUviVFNFTU-*NabO*W<5QfG;yZxxC~>4_UUwj<kU)qzVB=B97mGe(y|SB3z3{}J?Jau$PyO8F%&EWLeQw_mAD>)%W_Iv3`^M=ht
uMaj!mXNHVx+zDt4z(!8>25@U-R^iH;z32=p1?R@VQIlx7XqCL#&NuXyaI`-^L-K{Q<6yzo+=YLfQ(A7`j6vGX22HjmVmGStB~dM$9)0>LpXhD{}wNB==u
^OF1)f<)J-ScOJR?N^1S5=hFuVtL8#mFWh`);>+4+U;1q07w^3N_Xl0M+`|5=RYp@~S(DiH$jRRpwp^auRsY@bE0^YbHfH|-%wr~G6X;F~lw0~!DfzR8-{
cCL&u<r=d$;AMwg<dJEB|ea-ViLe_-{D&AC?p!MF
"""
WEBM: Final = """
c-oV4y}x+AQ(GgW({~{L)X3uWxsk)EsiizMDc7kT$Zc(8k_c`{XJh~Y=GB6}vrBgQ?(Pm=-6HC_GA(#b<3b2eEM#3akoUuPcMp&!6mmE{cuf=IHV9WHcsE
e8iFxW9h&c?A4736uS6$M&zOk9#$)S4XBp=rh4_94Z#~^RlAl(qp5Fc0HhF+h<vNSUzJwqTeFba1><+~(ya9QfdEIDPx;L_RQkO?ss<UNNS>!8l}y57iGe
6+*k(<UyllhUu|G%^I|p;;B==<Kbubxw0>UP?zJLtATDd{}^Gb0eej<K`CDuMZg>v~6f~*wttNGcx9SBNNa_QO1?bM@~<g2s9E&cbj9pe?Vw(*sA7ay#-;
rTUd^4VQ6k-dN^@@BjeT%hvx-gBa%`Y1(Fv{_Ae+c_DD@kVPv#mY}gH!0Y!(SRB^FGbMk?P^b_-47q>YEg?I*sxU^43aW+IW{lr4o#qG}izP_%0KqXU9lt
6{kPt0;%+~MQz>=@$d@8{Cqqit%WXR2#pXsl<V50-3q^>g-jaSd{5M-AZO;@imwx|0#XmwsZI>*5{{M?V)I*PwVmM_*TTJE3x5cXhag20`tdY+zsoMtVjD
P{2@Jya{4DEF^JjGBC4%YLa)}R_d_xc_YK(_9g~~h9Cd`Exy_aWHfm;J25bSVEV>kp&}#U#lT>Yz`#(yk>fwN{Qs|Oq}2ca-+a3N^?#xI8}+|VJ^lZGqjR
0MP-vwu`?{N!|Ly<(xLE%G|Np;7Y=ETNq20ymVDm-6<^vg;AjX2p3xP~q1|V~GBYWwh7KXF`5*Dv*WJqCXV{n)>M<4*0?LfBvHoGDH>wAfG{g3NMw`cT!n
R)*E^X+$6t(=(c2g+U(clU2@WZ2#X%*G#^n67<j<N*Mi{$U{
"""
LIVE_WEBM: Final = """
c-oV4y}x+AQ(GgW({~{L)X3uWxsk)EsiizMDc7kT$Zc(8k_c`{XZ#NVg1)m$R{QSm4qn|N>bWv4cunI%2v00zT{e*S)^~RgkS7#!I6Zhx6XWVPj0|9q!9X
Vfa@BFI>l>T-ogAuHPV#XL@o?4kbqw-$4blzq4DoUGZRqt$EK4&p(lZ1i1EX+9RK81M2bZOO%#u@93?M%_>{ti&g4gv%#^R$L8bUIb-LIM#%xPo@&O<Xl$
kEwbY3rQk(!7+8MuxW5u=ub5%jQN#<;Tq}tY058JZRg{=&-BN0A^&&^+qP3kxKhiMEaZ0^8k%R(%t45?;j8v9JZ=CS#Lqu?iQ9KTNs)fnI2A@-^jSN!{K=
W*odT*MuFr-ll==yi#<{kQy3X77#ntjWk7M@aIm=8p*i_LL;8vNu8Z3ogF-xmLtNS?qc|HPnto!T>*982e_vl$KcJE+C`zEh=_h8nF7EL0cXkZ%^!IaV@6
k3j(lgaHFf`UP(FaSmyZSl%ySN6qw4;V<aq;%#1Kr7p;7dQT%yn^(hohg1k84o8pQEoUx}8utdFO4V4m+PWGAwRyVqj?a@&DiAtBpWLlV`IN1M>%_ZyXjX
G7?@43<e1d4D}m1{&UO!|GGv>{r~^Xr~6<37plKe|LfG#|Nl2S*J%rdR{FB9yJ`8~{{N4Q<-p|p_lOOUR6Df0SRHJ>DA;@;LleYUFnJ-6Y0Cg)&TeEcUDU
#G_Fux{wT%oZ3~dY!ljaBnFfcHKZ2fI^L;BbE66yLM*N<+`=>IbF{P*YE@2*-oG20IStoAgj
"""
